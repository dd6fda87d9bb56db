#!/usr/bin/env bash
# Alert rules by promtool; then every query of the dashboard and of the rules on a live Prometheus that scrapes a live server.
# SCRIP_BIN names the binary.
set -euo pipefail
cd "$(dirname "$0")/.."
(cd deploy/prometheus && promtool check rules alerts.yml && promtool test rules alerts_test.yml)
exec python3 scripts/dashboard_queries.py "$SCRIP_BIN"
