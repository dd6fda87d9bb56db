#!/usr/bin/env python3
"""How fast work that has piled up is done: background jobs, events to a webhook, events to NATS.

    SCRIP_BIN=target/release/scrip scripts/drain.py jobs|webhook|nats STORE

The work is made by a server that does none of it; a second one, on the same store, is then watched until all of it is done.
SCRIP_DRAIN_JOBS and SCRIP_DRAIN_EVENTS say how much (100,000 and 1,000,000). The receiver of the webhook counts each event
once and holds every member's to their order; NATS tells how many messages its stream has.
"""

import asyncio
import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from scrip_process import Scrip, free_port

JOBS = int(os.environ.get("SCRIP_DRAIN_JOBS", "100000"))
EVENTS = int(os.environ.get("SCRIP_DRAIN_EVENTS", "1000000"))
MEMBERS = 50_000
IDLE = {
    "SCRIP_JOBS__CONCURRENCY": "0",
    "SCRIP_JOBS__LONG_CONCURRENCY": "0",
    "SCRIP_PROJECTION__INTERVAL_MS": "0",
    "SCRIP_WEBHOOKS__POLL_MS": "0",
}
NATS = "/usr/sbin/nats-server" if os.path.exists("/usr/sbin/nats-server") else "nats-server"


def pile_up(store, what, count, make=Scrip.grant, before=lambda scrip, key: None):
    scrip = Scrip(store, **IDLE)
    key = scrip.shop()
    before(scrip, key)
    begun = time.monotonic()
    make(scrip, key, count, MEMBERS)
    print(f"{count:,} {what} made in {time.monotonic() - begun:.1f} s", flush=True)
    scrip.stop()


def drain(scrip, what, count, done, lag):
    """Watches until `done` has reached `count`; prints rate, memory and lag."""
    begun, memory, longest = time.monotonic(), 0, 0.0
    while (so_far := done()) < count:
        memory, longest = max(memory, scrip.memory_mb()), max(longest, lag())
        if time.monotonic() - begun > 3_600 or scrip.process.poll() is not None:
            raise SystemExit(f"{what}: only {so_far:,.0f} of {count:,} were done")
        time.sleep(0.1)
    took = time.monotonic() - begun
    print(
        f"{what}: {count:,} in {took:.1f} s, {count / took:,.0f} a second; at most {memory} MB of its own, "
        f"lag at most {longest:.0f} s, at the end {lag():.1f} s",
        flush=True,
    )


class Receiver:
    """Answers every webhook with 204; remembers which events came and the last of each member."""

    def __init__(self):
        self.port, self.seen, self.last, self.again, self.disordered = free_port(), set(), {}, 0, 0
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.listen(ready)), daemon=True).start()
        ready.wait()

    async def listen(self, ready):
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
        ready.set()
        await server.serve_forever()

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
                self.take(json.loads(await reader.readexactly(length)))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def take(self, event):
        if event["id"] in self.seen:
            self.again += 1
            return
        self.seen.add(event["id"])
        member, sequence = event["member_id"], event["data"]["sequence"]
        if sequence != self.last.get(member, 0) + 1:
            self.disordered += 1
        self.last[member] = sequence


def main(what, store):
    if what == "jobs":
        pile_up(store, "jobs", JOBS, Scrip.grant_later)
        scrip = Scrip(store, SCRIP_PROJECTION__INTERVAL_MS="0", SCRIP_WEBHOOKS__POLL_MS="0")
        done = lambda: scrip.metric(r'scrip_jobs_total\{job="\w*grant\w*",result="ok"\}')
        drain(scrip, "jobs", JOBS, done, lambda: scrip.metric(r"scrip_job_oldest_due_seconds\{.*\}"))
        scrip.stop()
    elif what == "webhook":
        receiver = Receiver()
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
            config.write('[webhooks]\nallow_http = true\nallow = ["127.0.0.1"]\n')
            config.flush()
            wanted = {"url": f"http://127.0.0.1:{receiver.port}/", "types": ["points.granted"]}
            IDLE["SCRIP_CONFIG"] = config.name
            pile_up(store, "events", EVENTS, before=lambda scrip, key: scrip.make("/v1/webhooks", key, wanted))
            scrip = Scrip(store, **{**IDLE, "SCRIP_WEBHOOKS__POLL_MS": "1000"})
            drain(scrip, "webhook", EVENTS, lambda: len(receiver.seen), lambda: scrip.metric("scrip_webhook_lag_seconds"))
            scrip.stop()
        print(f"webhook: {receiver.again} came again, {receiver.disordered} out of order")
        if receiver.disordered or len(receiver.seen) != EVENTS:
            raise SystemExit("an event is missing or out of its order")
    elif what == "nats":
        pile_up(store, "events", EVENTS)
        port, monitor = free_port(), free_port()
        with tempfile.TemporaryDirectory() as folder:
            command = [NATS, "-a", "127.0.0.1", "-p", str(port), "-m", str(monitor), "-js", "-sd", folder]
            nats = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            atexit.register(nats.kill)
            scrip = Scrip(store, SCRIP_EVENTS__NATS_URL=f"nats://127.0.0.1:{port}", **IDLE)

            def messages():
                with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/jsz") as answer:
                    return json.load(answer)["messages"]

            drain(scrip, "NATS", EVENTS, messages, lambda: scrip.metric("scrip_broker_lag_seconds"))
            scrip.stop()
            nats.terminate()
            nats.wait(timeout=30)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
