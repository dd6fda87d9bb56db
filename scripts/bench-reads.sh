#!/usr/bin/env bash
# Reads at a fixed rate on PostgreSQL with ten million rows: as a server is by default, without its caches, and with a replica that
# answers what it may. SCRIP_READS_ACCOUNTS, SCRIP_READS_PER_SECOND and SCRIP_READS_SECONDS say of how many members, how many and for
# how long (1,000,000; 5,000; 60).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/postgres.sh
mkdir -p bench-out
# Not in /tmp, which may be memory: a sync must cost what it costs.
export TMPDIR=$PWD/bench-out
export SCRIP_STORE__SLOW_STATEMENT_MS=50
replica_dir=
stop_all() {
  if [ -n "$replica_dir" ]; then
    "${PG_RUN[@]}" "$PG_BIN/pg_ctl" -D "$replica_dir" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$replica_dir"
  fi
  stop_postgres
}
trap stop_all EXIT
start_postgres
new_database reads
store=$PG_URL/reads
accounts=(--accounts "${SCRIP_READS_ACCOUNTS:-1000000}")
echo "== Members, coupons and their history =="
"$SCRIP_BIN" bench --store "$store" --scenario reads --seconds 1 --repetitions 1 "${accounts[@]}" >/dev/null
rows="SELECT sum((xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM %I', relname), false, true, '')))[1]::text::bigint)
      FROM pg_stat_user_tables WHERE schemaname = 'public'"
"${PG_RUN[@]}" "$PG_BIN/psql" -qAt "$store" -c "VACUUM (ANALYZE)" -c "$rows" | sed 's/$/ rows/'

measure() {
  echo "== $1 =="
  scripts/watched-bench.py --store "$store" --scenario reads --rate "${SCRIP_READS_PER_SECOND:-5000}" --seconds "${SCRIP_READS_SECONDS:-60}" --repetitions 1 \
    "${accounts[@]}" --json "bench-out/reads-${1// /-}.json" || true
}

measure "as it is"
SCRIP_CACHE__TEMPLATE_SECONDS=0 SCRIP_CACHE__RULES_SECONDS=0 measure "without caches"
replica_dir=$(mktemp -d "$TMPDIR/scrip-replica-XXXXXX")
port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
if [ "$(id -u)" -eq 0 ]; then chown postgres "$replica_dir"; fi
"${PG_RUN[@]}" "$PG_BIN/pg_basebackup" -d "$PG_URL/postgres" -D "$replica_dir" -R -X stream -c fast
"${PG_RUN[@]}" "$PG_BIN/pg_ctl" -D "$replica_dir" -w -l "$replica_dir/server.log" \
  -o "-p $port -k $PG_DIR -c listen_addresses=127.0.0.1 -c shared_buffers=2GB" start >/dev/null
SCRIP_STORE__REPLICA_URL="postgres://postgres@127.0.0.1:$port/reads" measure "with a replica"
