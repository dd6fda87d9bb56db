#!/usr/bin/env bash
# The canonical figures: Scrip beside the brief's algorithm on PostgreSQL, then every scenario on PostgreSQL and on SQLite,
# then the open loop of 1,000 claims a second. Reports also go to bench-out/ as JSON.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/postgres.sh
out=bench-out
mkdir -p "$out"
redis_dir=$(mktemp -d)
redis_port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$redis_dir" >"$redis_dir/log" &
redis_pid=$!
# Not in /tmp, which may be memory: a sync must cost what it costs.
export TMPDIR=$PWD/$out
trap 'kill "$redis_pid" 2>/dev/null || true; rm -rf "$redis_dir"; stop_postgres' EXIT
start_postgres
for name in compare brief scenarios open; do new_database "$name"; done

status=0
echo "== Scrip beside the brief's algorithm, PostgreSQL =="
target/release/scrip-bench compare --scenario hot-claim,debit-uniform,debit-hot --store "$PG_URL/compare" \
  --brief-store "$PG_URL/brief" --redis "redis://127.0.0.1:$redis_port" --json "$out/compare.json" "$@" || status=1
echo "== Every scenario, PostgreSQL =="
target/release/scrip bench --store "$PG_URL/scenarios" --json "$out/postgres.json" "$@" || status=1
echo "== Every scenario, SQLite =="
(cd "$out" && ../target/release/scrip bench --json sqlite.json "$@") || status=1
echo "== 1,000 claims a second, open loop =="
target/release/scrip bench --store "$PG_URL/open" --scenario hot-claim --rate 1000 --json "$out/open-postgres.json" "$@" || status=1
(cd "$out" && ../target/release/scrip bench --scenario hot-claim --rate 1000 --json open-sqlite.json "$@") || status=1
exit $status
