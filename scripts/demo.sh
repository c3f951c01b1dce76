#!/usr/bin/env bash
# Runs the demo with a binary that is there already, on a fresh warehouse.
#     scripts/demo.sh REMIGE [WAREHOUSE]
set -euo pipefail
cd "$(dirname "$0")/.."
remige=${1:?usage: scripts/demo.sh REMIGE [WAREHOUSE]}
warehouse=${2:-warehouse-demo}
rm -rf -- "$warehouse"
mkdir -p examples/out
start=$SECONDS
"$remige" sql -w "$warehouse" -f examples/flights.sql
cat <<END

The demo took $((SECONDS - start)) s. Its warehouse is $warehouse; the training set is examples/out/late_departures.parquet.

Try next:
  $remige sql -w $warehouse                                  an interactive shell
  $remige sql -w $warehouse -c "SHOW FEATURES"
  $remige serve -w $warehouse                                a Flight SQL server; then, with the packages it names:
  python3 examples/client.py grpc://127.0.0.1:8815           reads over ADBC, trains a model
END
