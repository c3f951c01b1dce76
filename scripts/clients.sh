#!/usr/bin/env bash
# The Python checks: the demo against DuckDB, the tables in other readers, the documentation, the command
# line, and real clients against a running server.
#     scripts/clients.sh REMIGE
set -euo pipefail
cd "$(dirname "$0")/.."
remige=$(realpath "${1:?usage: scripts/clients.sh REMIGE}")
python=${PYTHON:-.venv/bin/python}
tmp=$(mktemp -d)
server=""
failed=()

stop_server() {
  [ -n "$server" ] || return 0
  kill -TERM "$server" 2>/dev/null || true
  local code=0
  wait "$server" || code=$?
  server=""
  if [ "$code" -ne 0 ]; then
    echo "the server ended with $code after SIGTERM:" >&2
    tail -n 20 "$tmp/serve.err" >&2
    return 1
  fi
}
trap 'stop_server || true; rm -rf "$tmp"' EXIT

# Sets $address once the server says that it accepts calls.
start_server() {
  # the address of the server before this one must not be read
  : >"$tmp/serve.out"
  "$remige" serve -w "$1" --listen 127.0.0.1:0 >"$tmp/serve.out" 2>"$tmp/serve.err" &
  server=$!
  for _ in $(seq 300); do
    address=$(sed -n 's/^remige ready //p' "$tmp/serve.out")
    [ -z "$address" ] || return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  echo "the server did not become ready:" >&2
  cat "$tmp/serve.out" "$tmp/serve.err" >&2
  exit 1
}

check() {
  echo "== $*"
  local start=$SECONDS
  if "$@"; then
    echo "== passed in $((SECONDS - start)) s"
  else
    failed+=("$*")
    echo "== FAILED: $*"
  fi
}

check scripts/demo.sh "$remige" "$tmp/demo"
check "$python" tests/clients/demo_check.py "$remige" "$tmp/demo"
check "$python" tests/clients/asof_duckdb.py "$remige"
check "$python" tests/clients/windows_duckdb.py "$remige"
check "$python" tests/clients/redis_check.py "$remige" "$tmp/demo"
check "$python" tests/clients/redis_expiry.py "$remige"
check "$python" tests/clients/readers_check.py "$remige" "$tmp/demo"
check "$python" tests/clients/functions_check.py "$remige"
# Feast has an environment of its own, which wants the network once
if benches/online/setup.sh; then
  check benches/online/.feast/bin/python tests/clients/feast_check.py "$remige"
else
  echo "== SKIPPED: tests/clients/feast_check.py: Feast cannot be installed here" >&2
fi
check "$python" tests/docs_check.py "$remige"
check "$python" tests/clients/serving_check.py "$remige"
check "$python" tests/cli/walk.py "$remige"
check "$python" tests/clients/kill_check.py "$remige" 3
check "$python" tests/clients/schedule_check.py "$remige"
check "$python" tests/clients/writers_check.py "$remige"
check "$python" tests/clients/older_check.py "$remige"
check "$python" tests/clients/dashboard_check.py
check "$python" tests/clients/online_faults.py "$remige"
check "$python" tests/clients/attack_check.py "$remige"
check "$python" tests/clients/cut_check.py "$remige" 150
check "$python" tests/clients/wire_attack_check.py "$remige"
check "$python" tests/clients/parameters_check.py "$remige"

start_server "$tmp/demo"
check "$python" examples/client.py "$address"
check stop_server

start_server "$tmp/serving"
check "$python" examples/lookup_ticket.py "$address"
check "$python" tests/clients/model_server_check.py "$address"
check stop_server

if [ -f tests/clients/adbc_walk.py ]; then
  start_server "$tmp/walk"
  check "$python" tests/clients/adbc_walk.py "$address"
  check "$python" tests/clients/prepared_check.py "$address"
  check stop_server
fi

if [ ${#failed[@]} -gt 0 ]; then
  printf 'python checks: %d FAILED\n' "${#failed[@]}"
  printf '  %s\n' "${failed[@]}"
  exit 1
fi
echo "python checks: all passed"
