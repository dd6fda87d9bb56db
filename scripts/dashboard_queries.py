"""Starts a server and a Prometheus that scrapes it, and asks every query of the dashboard and of the alert rules.

A query fails when Prometheus refuses it, or when a metric it names is not exposed by the server.
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

DEPLOY = pathlib.Path(__file__).parent.parent / "deploy"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def wait_for(what, probe):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if probe():
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come up in 30 seconds")


def queries():
    board = json.loads((DEPLOY / "grafana/scrip.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def main(binary):
    with tempfile.TemporaryDirectory() as folder:
        scrip_port, prometheus_port = free_port(), free_port()
        config = pathlib.Path(folder, "prometheus.yml")
        config.write_text(
            "global: {scrape_interval: 200ms}\n"
            f"rule_files: ['{(DEPLOY / 'prometheus/alerts.yml').resolve()}']\n"
            "scrape_configs: [{job_name: scrip, static_configs: [{targets: ['127.0.0.1:%d']}]}]\n" % scrip_port
        )
        processes = []
        try:
            with open(pathlib.Path(folder, "log"), "w") as log:
                processes.append(subprocess.Popen(
                    [binary, "serve", "--listen", f"127.0.0.1:{scrip_port}", "--store", f"sqlite:{folder}/scrip.db"],
                    stdout=log, stderr=log))
                processes.append(subprocess.Popen(
                    ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
                     f"--web.listen-address=127.0.0.1:{prometheus_port}"], stdout=log, stderr=log))
            scrip, api = f"http://127.0.0.1:{scrip_port}", f"http://127.0.0.1:{prometheus_port}/api/v1"
            wait_for("scrip", lambda: get(f"{scrip}/readyz"))
            exposed = set(re.findall(r"^# TYPE (\S+)", get(f"{scrip}/metrics"), re.MULTILINE))
            wait_for("Prometheus", lambda: len(json.loads(get(f"{api}/query?query=up"))["data"]["result"]) == 1)
            failed = []
            rules = json.loads(get(f"{api}/rules"))["data"]["groups"]
            alerts = [(rule["name"], rule["query"]) for group in rules for rule in group["rules"]]
            asked = list(queries()) + alerts
            for title, query in asked:
                names = set(re.findall(r"scrip_\w+", query))
                names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
                unknown = names - exposed - LABELLED
                if unknown:
                    failed.append(f"{title}: the server has no metric {', '.join(sorted(unknown))}")
                try:
                    get(f"{api}/query?query={urllib.parse.quote(query)}")
                except urllib.error.HTTPError as error:
                    failed.append(f"{title}: {error.read().decode()}")
            if failed:
                raise SystemExit("\n".join(failed))
            print(f"{len(asked)} queries of the dashboard and the alerts answered; every metric they name is exposed")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=30)


# Shown once they have a label, after the first pass of a job or the first command; with PostgreSQL, and with a replica.
LABELLED = {"scrip_cache_lookups_total", "scrip_cache_evictions_total", "scrip_cache_unheard_seconds",
            "scrip_cache_shared_failures_total", "scrip_cache_shared_connected",
            "scrip_replica_connected", "scrip_replica_lag_seconds", "scrip_replica_reads_total",
            "scrip_webhook_deliveries_total", "scrip_store_slow_statements_total", "scrip_operation_seconds",
            "scrip_postgres_scans", "scrip_postgres_blocks", "scrip_jobs_total", "scrip_commands_total", "scrip_http_requests_total", "scrip_http_request_seconds"}

main(sys.argv[1])
