#!/usr/bin/env bash
# A slice of the retail year on both stores: 120 households, half a year, run twice.
exec "$(dirname "$0")/journey.sh" --slice "$@"
