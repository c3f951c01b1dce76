#!/usr/bin/env bash
# Feast and the Python clients of the benchmark, in an environment of their own beside .venv.
#     benches/online/setup.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")"
venv=${1:-.feast}
if ! cmp -s requirements.txt "$venv/.requirements"; then
  echo "setup: making $venv"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt "$venv/.requirements"
fi
echo "setup: $("$venv/bin/feast" version 2>/dev/null | tail -n 1) in $venv"
