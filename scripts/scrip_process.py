"""A server of our own for the measuring scripts: started, asked, watched and stopped."""

import atexit
import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time

PLATFORM_KEY = "platform-key-of-a-measurement"
BATCH = 5_000


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Scrip:
    """`scrip serve` with settings of the environment's form."""

    def __init__(self, store, **settings):
        self.port = free_port()
        environment = dict(os.environ, SCRIP_PLATFORM_KEY=PLATFORM_KEY, SCRIP_LOG__FILTER="error", **settings)
        command = [os.environ["SCRIP_BIN"], "serve", "--listen", f"127.0.0.1:{self.port}", "--store", store]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        # However the script ends, nothing of it goes on.
        atexit.register(self.process.kill)
        deadline = time.monotonic() + 60
        while True:
            try:
                if self.ask("GET", "/readyz", "")[0] == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(0.05)

    def ask(self, method, path, key, body=None, kind="application/json"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"authorization": f"Bearer {key}"}
        if body is not None:
            headers["content-type"] = kind
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def make(self, path, key, body):
        status, answer = self.ask("POST", path, key, json.dumps(body))
        if status not in (200, 201):
            raise SystemExit(f"{path}: {status} {answer.decode()}")
        return json.loads(answer)

    def shop(self):
        """The operator's key of a new tenant."""
        tenant = self.make("/v1/tenants", PLATFORM_KEY, {"name": "measured"})["id"]
        return self.make(f"/v1/tenants/{tenant}/api-keys", PLATFORM_KEY, {"name": "measured", "scope": "OPERATOR"})["secret"]

    def grant_later(self, key, count, members):
        """Enqueues a grant for each of members in turn, by 16 callers."""
        numbers, lock, failures = iter(range(count)), threading.Lock(), []

        def work():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            while not failures:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                body = json.dumps({"points": 1, "mode": "async"})
                connection.request("POST", f"/v1/members/m-{number % members}/points/grants", body, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 202:
                    failures.append(f"{answer.status} {text[:300]}")

        self.run_callers(work, 16, failures)

    def grant(self, key, count, members):
        """Grants a point each to members in turn, by batches of four callers."""
        starts, lock = iter(range(0, count, BATCH)), threading.Lock()
        failures = []

        def work():
            while not failures:
                with lock:
                    start = next(starts, None)
                if start is None:
                    return
                lines = (
                    json.dumps({"op": "grant", "member_id": f"m-{number % members}", "points": 1})
                    for number in range(start, min(start + BATCH, count))
                )
                status, answer = self.ask("POST", "/v1/batch", key, "\n".join(lines), "application/x-ndjson")
                if status != 200 or b'"error"' in answer:
                    failures.append(f"{status} {answer[:300]}")

        self.run_callers(work, 4, failures)

    @staticmethod
    def run_callers(work, count, failures):
        callers = [threading.Thread(target=work) for _ in range(count)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        if failures:
            raise SystemExit(failures[0])

    def metric(self, pattern):
        """The sum of the metrics whose name and labels match."""
        text = self.ask("GET", "/metrics", "")[1].decode()
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))

    def memory_mb(self):
        """What the process holds of its own."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"RssAnon:\s+(\d+)", status.read()).group(1)) // 1024

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)
