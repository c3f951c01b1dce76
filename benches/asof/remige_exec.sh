#!/usr/bin/env bash
# One timed run of Remige for bench.py:  remige_exec.sh DATA OUT THREADS
# A fresh warehouse (left beside OUT), the Parquet files as external tables, one point-in-time join per view, one output file.
# REMIGE names the binary. Ties (gen.py --dup-frac) need the tie-break on created_ts, as for the other engines.
set -euo pipefail
data=$(realpath "$1") out=$2 threads=$3
remige=${REMIGE:-"$(dirname "$0")/../../target/release/remige"}
tmp=$(mktemp -d -p "$(dirname "$out")" remige.XXXX)

meta() { sed -n "s/^ *\"$1\": \([0-9.]*\),*$/\1/p" "$data/meta.json"; }
features=()
for ((i = 0; i < $(meta numeric); i++)); do features+=("n$i"); done
for ((i = 0; i < $(meta strings); i++)); do features+=("s$i"); done
views=()
for f in "$data"/v*.parquet; do views+=("$(basename "$f" .parquet)"); done

{
  echo "CREATE EXTERNAL TABLE labels STORED AS PARQUET LOCATION '$data/labels.parquet';"
  for v in "${views[@]}"; do
    echo "CREATE EXTERNAL TABLE $v STORED AS PARQUET LOCATION '$data/$v.parquet';"
  done
  printf 'COPY (SELECT l.*'
  for v in "${views[@]}"; do
    for c in "${features[@]}"; do printf ', %s.%s AS %s__%s' "$v" "$c" "$v" "$c"; done
  done
  printf ' FROM labels l'
  for v in "${views[@]}"; do
    source=$v
    if [ "$(meta dup_frac)" != 0.0 ]; then
      source="(SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY entity_id, event_ts ORDER BY created_ts DESC) AS latest FROM $v) WHERE latest = 1)"
    fi
    printf ' ASOF JOIN %s %s MATCH_CONDITION (l.event_ts >= %s.event_ts) ON l.entity_id = %s.entity_id' "$source" "$v" "$v" "$v"
    printf " WITHIN INTERVAL '%s days'" "$(meta ttl_days)"
  done
  echo ") TO '$out' STORED AS PARQUET;"
} >"$tmp/join.sql"

# exec, so that bench.py measures the engine and not a shell; it also removes the folder of OUT afterwards.
exec "$remige" sql -w "$tmp/warehouse" --threads "$threads" -f "$tmp/join.sql"
