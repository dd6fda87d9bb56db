#!/usr/bin/env bash
# Runs a command with the URL of a new database, on a PostgreSQL of its own, as its last argument.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/postgres.sh
mkdir -p bench-out
# Not in /tmp, which may be memory: a sync must cost what it costs.
export TMPDIR=$PWD/bench-out
trap stop_postgres EXIT
start_postgres
new_database measured
"$@" "$PG_URL/measured"
