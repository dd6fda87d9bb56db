#!/usr/bin/env python3
"""What telemetry costs on hot claims: off, metrics, metrics and full traces, in turns.

    SCRIP_BIN=target/release/scrip scripts/telemetry-overhead.py [ROUNDS] [SECONDS]

Server CPU per claim is compared, by the median over the rounds: it wanders less than the rate, which load generator and
collector share the machine with. More than 3 % for metrics fails.
"""

import http.server
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes spans over OTLP/HTTP and forgets them."""

    protocol_version = "HTTP/1.1"
    spans = 0

    def do_POST(self):
        Collector.spans += len(self.rfile.read(int(self.headers["content-length"]))) > 0
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def measure(settings, seconds):
    """Claims a second, and server CPU of each in microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [os.path.abspath(os.environ["SCRIP_BIN"]), "bench", "--scenario", "hot-claim", "--repetitions", "1",
                   "--seconds", str(seconds), "--json", report]
        environment = dict(os.environ, SCRIP_LOG__FILTER="error", **settings)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if not os.path.exists(report):
            raise SystemExit(done.stderr)
        with open(report) as file:
            results = json.load(file)["results"]
        measured = results[0]["repetitions"][0]
        return measured["achieved_per_s"], measured["server_cpu_us_per_op"]


def main(rounds=5, seconds=6):
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    traces = {
        "SCRIP_TELEMETRY__OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_address[1]}",
        "SCRIP_TELEMETRY__TRACES_PER_MILLE": "1000",
    }
    ways = {"off": {"SCRIP_TELEMETRY__METRICS": "false"}, "metrics": {}, "metrics and traces": traces}
    found = {name: [] for name in ways}
    for number in range(int(rounds)):
        # Each way goes first in turn.
        names = list(ways)
        for name in names[number % 3:] + names[:number % 3]:
            found[name].append(measure(ways[name], seconds))
            print("round {}: {}: {:,.0f} claims a second, {:.1f} us of server CPU each".format(number + 1, name, *found[name][-1]),
                  flush=True)
    if Collector.spans == 0:
        raise SystemExit("no spans came to the collector")
    cpu = {name: statistics.median(each for _, each in values) for name, values in found.items()}
    for name, values in found.items():
        rate = statistics.median(rate for rate, _ in values)
        print(f"{name}: {rate:,.0f} claims a second, {cpu[name]:.1f} us each: {100 * (cpu[name] / cpu['off'] - 1):+.1f} %")
    if cpu["metrics"] > cpu["off"] * 1.03:
        raise SystemExit("metrics cost more than 3 %")


main(*sys.argv[1:])
