#!/usr/bin/env bash
# What the tests need beyond Rust: a redis-server, and a private Python environment with pinned clients.
# Does nothing where both are there; run by `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

apt_install() {
  local root=""
  if [ "$(id -u)" -ne 0 ]; then
    root="sudo -n"
    if ! sudo -n true 2>/dev/null; then
      echo "setup: $* is missing, and this user cannot install it without a password." >&2
      echo "setup: run  sudo apt-get update && sudo apt-get install -y $*  and then again: make test" >&2
      exit 1
    fi
  fi
  if ! command -v apt-get >/dev/null; then
    echo "setup: $* is missing and there is no apt-get here: install it with your package manager." >&2
    exit 1
  fi
  echo "setup: installing $* with apt-get"
  $root apt-get update -qq
  $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

command -v redis-server >/dev/null || apt_install redis-server

stamp=.venv/.requirements
if ! cmp -s scripts/requirements.txt "$stamp"; then
  command -v python3 >/dev/null || apt_install python3 python3-venv
  python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
  echo "setup: making .venv"
  rm -rf .venv
  python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
  cp scripts/requirements.txt "$stamp"
fi
echo "setup: redis-server $(redis-server --version | sed 's/.*v=\([0-9.]*\).*/\1/'), python $(.venv/bin/python -V | cut -d' ' -f2) in .venv"
