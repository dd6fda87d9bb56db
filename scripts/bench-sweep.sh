#!/usr/bin/env bash
# 1,000 claims a second, open loop over HTTP, before and while a million lots of another tenant expire at once; on SQLite and
# PostgreSQL. SCRIP_SWEEP_LOTS says how many lots (1,000,000), SCRIP_SWEEP_LOTS_EACH how many of them a member has (1, which costs
# most), SCRIP_SWEEP_LEAD in how many seconds they expire (300): making them and the measurement before come first.
# SCRIP_SWEEP_SECONDS says how long claims are measured beside it (65: all of a million), SCRIP_SWEEP_RATE how many come in a second,
# SCRIP_SWEEP_STORES that only `sqlite` or only `postgres` is measured.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/postgres.sh
mkdir -p bench-out
# Not in /tmp, which may be memory: a sync must cost what it costs.
export TMPDIR=$PWD/bench-out
folder=$(mktemp -d "$TMPDIR/scrip-sweep-XXXXXX")
trap 'stop_postgres; rm -rf "$folder"' EXIT
export SCRIP_HOUSEKEEPING__INTERVAL_SECONDS=1
# What the fold of a million grants costs is not the question here.
export SCRIP_PROJECTION__INTERVAL_MS=0

claims() {
  "$SCRIP_BIN" bench --scenario hot-claim --rate "${SCRIP_SWEEP_RATE:-1000}" --seconds "$1" --repetitions 1 --accounts 1000 --store "$store" 2>/dev/null |
    grep -E "^\| hot|INVALID|verify" || true
}

measure() {
  local store=$1 tenant
  tenant=$("$SCRIP_BIN" tenant create expiring --json --store "$store" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
  local due=$(($(date +%s) + ${SCRIP_SWEEP_LEAD:-300}))
  python3 - "$due" "${SCRIP_SWEEP_LOTS:-1000000}" "${SCRIP_SWEEP_LOTS_EACH:-1}" >"$folder/lots.csv" <<'P'
import datetime, sys
due = datetime.datetime.fromtimestamp(int(sys.argv[1]), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
print("member_id,points,expires_at")
for number in range(int(sys.argv[2])):
    print(f"m-{number // int(sys.argv[3])},7,{due}")
P
  "$SCRIP_BIN" grant --tenant "$tenant" --store "$store" "$folder/lots.csv" >/dev/null 2>&1
  echo "made $((due - $(date +%s))) s before they expire"
  echo "before:"
  claims 20
  local ready=$((due - $(date +%s) - 15))
  [ "$ready" -gt 0 ] || { echo "there was not enough time: set SCRIP_SWEEP_LEAD" >&2; exit 1; }
  sleep "$ready"
  echo "beside it:"
  claims "${SCRIP_SWEEP_SECONDS:-65}"
  local sql="SELECT count(*), min(recorded_at) / 1000 - ${due}000, max(recorded_at) / 1000 - ${due}000 FROM mkt_points_transaction WHERE type = 'EXPIRE'"
  case $store in
    sqlite:*) python3 -c 'import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone())' "${store#sqlite:}" "$sql" ;;
    *) "${PG_RUN[@]}" "$PG_BIN/psql" -qAtF ' ' "$store" -c "$sql" ;;
  esac | awk '{ printf "%d lots expired, written from %.1f to %.1f s after their end\n", $1, $2 / 1000, $3 / 1000 }'
}

case ${SCRIP_SWEEP_STORES:-both} in both | sqlite)
  echo "== SQLite =="
  measure "sqlite:$folder/sweep.db" ;;
esac
case ${SCRIP_SWEEP_STORES:-both} in both | postgres)
  echo "== PostgreSQL =="
  start_postgres
  new_database sweep
  measure "$PG_URL/sweep" ;;
esac
