#!/usr/bin/env bash
# Licences, sources and bans (cargo-deny), unused dependencies (cargo-machete). Installs the two tools when missing.
# The advisory database lives on GitHub; where it cannot be reached the other checks still run.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
command -v cargo-machete >/dev/null || cargo install --locked cargo-machete
cargo deny check licenses bans sources
cargo machete
if [ "${SCRIP_ADVISORIES:-0}" = 1 ]; then cargo deny check advisories; fi
