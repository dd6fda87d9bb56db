#!/usr/bin/env bash
# Replays the retail year on both stores, each twice: the second run must change nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/postgres.sh
trap stop_postgres EXIT
start_postgres
new_database journey
examples/complete-journey/run.sh --store sqlite --twice "$@"
SCRIP_PG_URL="$PG_URL/journey" examples/complete-journey/run.sh --store postgres --twice "$@"
