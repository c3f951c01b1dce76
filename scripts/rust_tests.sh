#!/usr/bin/env bash
# Runs the Rust tests, builds included. Where they do not come to an end, those that began and did not end are named last,
# where whoever reads the end of a log finds them.
set -uo pipefail
limit=${REMIGE_TEST_LIMIT:-2700}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
timeout --kill-after=10 "$limit" cargo test --locked 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
if [ "$code" = 124 ] || [ "$code" = 137 ]; then
  echo "The Rust tests did not end within $limit s (REMIGE_TEST_LIMIT). Still running:"
  sed -n 's/^test \(.*\) has been running for over .*/\1/p' "$log" | sort -u | while read -r name; do
    grep -qF "test $name ... " "$log" || echo "  $name"
  done
fi
exit "$code"
