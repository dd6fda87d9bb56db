#!/usr/bin/env bash
# 5,000 claims a second on a disk that takes 5 ms more for every sync, and the bytes that a claim and a debit leave on disk, with all
# indexes, ledger lines and events, and for as long as it is kept the idempotency result; on SQLite and PostgreSQL.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/postgres.sh
mkdir -p bench-out
# Not in /tmp, which may be memory: a sync must cost what it costs.
export TMPDIR=$PWD/bench-out
folder=$(mktemp -d "$TMPDIR/scrip-disk-XXXXXX")
# PostgreSQL, which may run as another user, loads the library from here.
chmod 755 "$folder"
trap 'stop_postgres; rm -rf "$folder"' EXIT
cat >"$folder/slow_sync.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int slowly(const char *name, int fd) {
  int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  usleep(5000);
  return sync(fd);
}
int fsync(int fd) { return slowly("fsync", fd); }
int fdatasync(int fd) { return slowly("fdatasync", fd); }
C
cc -shared -fPIC -O2 -o "$folder/slow_sync.so" "$folder/slow_sync.c" -ldl

measure() {
  "$SCRIP_BIN" bench --repetitions 1 "$@" 2>/dev/null | grep -E "^\||INVALID|verify" || true
}

# Without what a first page, a schema or a tenant takes: the difference between a short run and a long one.
bytes_each() {
  local scenario=$1 table=$2 store=$3 sizes=$4 before after
  measure --scenario "$scenario" --accounts 1000 --seconds 1 --store "$store" >/dev/null
  before=$($sizes "$table")
  measure --scenario "$scenario" --accounts 1000 --seconds 10 --store "$store" >/dev/null
  after=$($sizes "$table")
  echo "$before $after" | awk -v what="$scenario" '{
    each = $5 - $2; all = ($4 - $1) / each; result = ($6 - $3) / each
    printf "%s: %.0f bytes for each of %d, and %.0f for its idempotency result\n", what, all - result, each, result
  }'
}

# Bytes in use, rows, and bytes of the idempotency results.
sqlite_sizes() {
  python3 - "$folder/size.db" "$1" <<'P'
import sqlite3, sys
store = sqlite3.connect(sys.argv[1])
one = lambda sql: store.execute(sql).fetchone()[0]
used = (one("PRAGMA page_count") - one("PRAGMA freelist_count")) * one("PRAGMA page_size")
results = one("SELECT sum(pgsize) FROM dbstat WHERE name IN ('idempotency', 'idx_idempotency_created')")
print(used, one(f"SELECT count(*) FROM {sys.argv[2]}"), results)
P
}

postgres_sizes() {
  "${PG_RUN[@]}" "$PG_BIN/psql" -qAtF ' ' "$PG_URL/size" -c VACUUM -c \
    "SELECT pg_database_size('size'), (SELECT count(*) FROM $1), pg_total_relation_size('idempotency')"
}

# So many under way as come in the time of a few syncs.
slow=(--scenario hot-claim --rate 5000 --seconds 20 --connections 512)
echo "== SQLite, 5 ms more for each sync =="
LD_PRELOAD=$folder/slow_sync.so measure "${slow[@]}" --store "sqlite:$folder/slow.db"
echo "== PostgreSQL, 5 ms more for each sync =="
export LD_PRELOAD=$folder/slow_sync.so
start_postgres
unset LD_PRELOAD
new_database slow
measure "${slow[@]}" --store "$PG_URL/slow"
stop_postgres
echo "== Bytes on disk, SQLite =="
bytes_each hot-claim mkt_user_coupon "sqlite:$folder/size.db" sqlite_sizes
bytes_each debit-uniform mkt_points_transaction "sqlite:$folder/size.db" sqlite_sizes
echo "== Bytes on disk, PostgreSQL =="
start_postgres
new_database size
bytes_each hot-claim mkt_user_coupon "$PG_URL/size" postgres_sizes
bytes_each debit-uniform mkt_points_transaction "$PG_URL/size" postgres_sizes
