#!/usr/bin/env bash
# Schemathesis against a server of its own: generated requests, good and bad, for every operation of the API's description.
# Fails on a server error, an undeclared status or media type, and an answer that differs from its schema. Left out are checks
# of taste: a business refusal (422) is a right answer to a well-formed request, an empty parameter counts as none, and a
# missing If-Match is a 428 (RFC 6585).
# SCRIP_BIN names the binary; SCRIP_FUZZ_EXAMPLES how many requests for each operation; SCRIP_FUZZ_SEED other ones; SCRIP_STORE a store other than SQLite.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/schemathesis
[ -x "$venv/bin/schemathesis" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q 'schemathesis==4.*'; }
folder=$(mktemp -d)
export SCHEMATHESIS_HOOKS=$PWD/scripts/api_fuzz_hooks.py
port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
address=http://127.0.0.1:$port
SCRIP_PLATFORM_KEY=platform-key-of-the-fuzz "$SCRIP_BIN" serve --listen "127.0.0.1:$port" \
  --store "${SCRIP_STORE:-sqlite:$folder/scrip.db}" >"$folder/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
post() { curl -fsS -H "Authorization: Bearer $1" -H 'Content-Type: application/json' -d "$3" "$address$2"; }
field() { python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }
for _ in $(seq 100); do curl -fs "$address/readyz" >/dev/null && break; sleep 0.1; done
tenant=$(post platform-key-of-the-fuzz /v1/tenants '{"name": "fuzz"}' | field id)
key=$(post platform-key-of-the-fuzz "/v1/tenants/$tenant/api-keys" '{"name": "fuzz", "scope": "OPERATOR"}' | field secret)
post "$key" /v1/programs '{"code": "miles", "name": "Miles"}' >/dev/null
fuzz() {
  (cd "$folder" && "$OLDPWD/$venv/bin/schemathesis" run "$address/openapi.json" "$@" \
    --seed "${SCRIP_FUZZ_SEED:-1}" --max-examples "${SCRIP_FUZZ_EXAMPLES:-20}" --include-path-regex '^/v1' \
    --exclude-checks positive_data_acceptance,negative_data_rejection,missing_required_header --suppress-health-check all)
}
# Three times: as an operator of a tenant, the same for one of its programs, and as whoever runs the platform.
fuzz --header "Authorization: Bearer $key"
fuzz --header "Authorization: Bearer $key" --header "Scrip-Program: miles"
fuzz --header "Authorization: Bearer platform-key-of-the-fuzz"
