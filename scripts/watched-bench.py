#!/usr/bin/env python3
"""Runs `scrip bench` and watches what the database does for it meanwhile.

    SCRIP_BIN=target/release/scrip scripts/watched-bench.py ARGUMENTS OF BENCH...

Beside the bench's own report: the share of slow statements (`store.slow_statement_ms`), connections of the pool in use, and, of
PostgreSQL, what was reached by an index and found in memory. PostgreSQL's counts are looked at every 30 s by the server; measure
for a minute or longer.
"""

import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request


def read(address):
    """Sums of the metrics, by name and the labels that matter here."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()

    def total(pattern):
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))

    return {
        "statements": total(r"scrip_store_statements_total\{.*\}"),
        "slow": total(r"scrip_store_slow_statements_total\{.*\}"),
        "in_use": total(r'scrip_store_connections\{.*state="in_use".*\}'),
        "waiting": total(r"scrip_store_waiting\{.*\}"),
        "index": total(r'scrip_postgres_scans\{kind="index"\}'),
        "table": total(r'scrip_postgres_scans\{kind="table"\}'),
        "hit": total(r'scrip_postgres_blocks\{kind="hit"\}'),
        "read": total(r'scrip_postgres_blocks\{kind="read"\}'),
        "hits": total(r'scrip_cache_lookups_total\{.*result="hit".*\}'),
        "lookups": total(r"scrip_cache_lookups_total\{.*\}"),
        "replica": total(r'scrip_replica_reads_total\{.*"replica"\}'),
        "reads": total(r"scrip_replica_reads_total\{.*\}"),
    }


def share(part, whole):
    return f"{100 * part / whole:.4g} %" if whole else "none"


def main(arguments):
    bench = subprocess.Popen(
        [os.environ["SCRIP_BIN"], "bench", *arguments], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    address = []

    def follow():
        for line in bench.stderr:
            if found := re.search(r"ready.*address.{0,12}?=.{0,6}?(127\.0\.0\.1:\d+)", line):
                address.append(found.group(1))
            elif "WARN" not in line and "INFO" not in line:
                sys.stderr.write(line)

    threading.Thread(target=follow, daemon=True).start()
    samples = []
    while bench.poll() is None:
        try:
            if address:
                samples.append(read(address[0]))
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    # Where PostgreSQL's counts have first been looked at.
    counted = [sample for sample in samples if sample["hit"]] or samples
    first, last = samples[0], samples[-1]
    moved = {name: last[name] - first[name] for name in first}
    by_database = {name: counted[-1][name] - counted[0][name] for name in first}
    in_use = sorted(sample["in_use"] for sample in samples)
    print(
        f"statements {moved['statements']:,.0f}, slow {moved['slow']:.0f} ({share(moved['slow'], moved['statements'])}); "
        f"pool in use P99 {in_use[int(len(in_use) * 0.99)]:.0f}, most {in_use[-1]:.0f}, "
        f"callers waiting at most {max(sample['waiting'] for sample in samples):.0f}"
    )
    print(
        f"reached by an index {share(by_database['index'], by_database['index'] + by_database['table'])} "
        f"({by_database['table']:.0f} whole tables), "
        f"found in memory {share(by_database['hit'], by_database['hit'] + by_database['read'])}; "
        f"cache hits {share(moved['hits'], moved['lookups'])} of {moved['lookups']:,.0f}; "
        f"answered by the replica {share(moved['replica'], moved['reads'])} of {moved['reads']:,.0f}"
    )
    return bench.returncode


sys.exit(main(sys.argv[1:]))
