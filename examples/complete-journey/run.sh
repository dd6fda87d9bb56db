#!/usr/bin/env bash
# Replay a year of retail through Scrip. See README.md.
#
#   ./run.sh --url URL --key KEY [...]      against a server that runs already
#   ./run.sh --store sqlite [...]           start one on a fresh SQLite file, replay, stop it, verify its store
#   ./run.sh --store postgres [...]         the same on the empty PostgreSQL database at $SCRIP_PG_URL
#   ./run.sh --store ... --twice [...]      replay a second time before the server stops: nothing may change
#
# Everything else ([...]) goes to journey.py; ./run.sh --help lists it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$here/.venv
bin=${SCRIP_BIN:-$here/../../target/release/scrip}

store="" twice="" out=out
arguments=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --store) store=${2:?--store needs sqlite or postgres}; shift 2 ;;
    --twice) twice=yes; shift ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    *) arguments+=("$1"); shift ;;
  esac
done
if [[ -n $twice && -z $store ]]; then
  echo "--twice goes with --store; with --url, run it again with --same-as out/report.json." >&2
  exit 2
fi

# The stamp is a copy of what was installed, so an edit of requirements.txt installs again.
if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
  echo "Installing the Python packages and the data (once)..." >&2
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/installed.txt"
fi

journey() {
  "$venv/bin/python" "$here/journey.py" ${arguments[@]+"${arguments[@]}"} "$@"
}

if [[ -z $store ]]; then
  journey --out "$out"
  exit
fi

scratch=$(mktemp -d)
server=""
cleanup() {
  if [[ -n $server ]]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$scratch"
}
trap cleanup EXIT

case $store in
  sqlite) store_url=sqlite:$scratch/scrip.db ;;
  postgres) store_url=${SCRIP_PG_URL:?set SCRIP_PG_URL to the URL of an empty database} ;;
  *) echo "--store takes sqlite or postgres, not $store." >&2; exit 2 ;;
esac

SCRIP_PLATFORM_KEY=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
export SCRIP_PLATFORM_KEY

port=${SCRIP_PORT:-$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
url=http://127.0.0.1:$port
"$bin" serve --listen "127.0.0.1:$port" --store "$store_url" >"$scratch/server.log" 2>&1 &
server=$!

for ((attempt = 1; ; attempt++)); do
  curl --silent --fail --output /dev/null "$url/readyz" && break
  if ((attempt == 150)) || ! kill -0 "$server" 2>/dev/null; then
    echo "The server did not become ready:" >&2
    tail -n 20 "$scratch/server.log" >&2
    exit 1
  fi
  sleep 0.2
done

read -r tenant SCRIP_KEY < <("$venv/bin/python" "$here/tenant.py" "$url")
export SCRIP_KEY

fail() {
  echo "$1 The server's last words:" >&2
  tail -n 20 "$scratch/server.log" >&2
  exit 1
}

journey --url "$url" --out "$out" || fail "The replay failed."
if [[ -n $twice ]]; then
  echo
  echo "And again, with the same idempotency keys:"
  journey --url "$url" --out "$out/again" --same-as "$out/report.json" || fail "The second replay failed."
fi

kill -TERM "$server"
stopped=0
wait "$server" || stopped=$?
server=""
if ((stopped != 0)); then
  fail "The server stopped with status $stopped."
fi

echo
echo "Verifying the $store store:"
"$bin" verify --store "$store_url" || fail "The store does not verify."

# What the shop owed its customers when the books were closed.
for format in text csv svg; do
  "$bin" report liability "$tenant" --as-of 2018-01-02T00:00:00Z --format "$format" --output "$out/liability.$format" \
    --store "$store_url"
done
echo
cat "$out/liability.text"
echo "Written: $out/liability.text, $out/liability.csv, $out/liability.svg"
