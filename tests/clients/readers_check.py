#!/usr/bin/env python3
"""Feature tables and training sets are plain Delta tables: other readers see the same rows.

    readers_check.py REMIGE WAREHOUSE

Opens every Delta table of the demo's warehouse with the Python deltalake package, DuckDB (over the files
that the Delta log lists) and Polars, and compares rows and values with `remige sql`.
"""
import io
import os
import subprocess
import sys

import deltalake
import duckdb
import polars as pl
import pyarrow as pa

HIDDEN = {"_seq"}
TABLES = ["origin_weather", "station_delays", "plane_facts", "late_departures"]


def run_sql(remige, warehouse, sql):
    done = subprocess.run([remige, "sql", "-w", warehouse, "--format", "arrow", "-c", sql], capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{sql}\n{done.stderr.decode()}")
    return pa.ipc.open_stream(io.BytesIO(done.stdout)).read_all()


def delta_tables(warehouse, name):
    """Folders of the warehouse that hold a Delta log and belong to the object `name`."""
    found = []
    for folder, inner, _ in os.walk(warehouse):
        if "_delta_log" in inner and name in os.path.relpath(folder, warehouse):
            found.append(folder)
    return found


def differences(con, want, got, columns):
    """Rows that only one of two relations has, duplicates counted."""
    names = ", ".join(f'"{c}"' for c in columns)
    one_way = "SELECT count(*) FROM (SELECT {n} FROM {a} EXCEPT ALL SELECT {n} FROM {b})"
    return sum(con.execute(one_way.format(n=names, a=a, b=b)).fetchall()[0][0] for a, b in ((want, got), (got, want)))


def check(remige, warehouse, name):
    folders = delta_tables(warehouse, name)
    if len(folders) != 1:
        print(f"FAIL {name}: expected one Delta table below {warehouse}, found {folders}")
        return False
    folder = folders[0]
    ours = run_sql(remige, warehouse, f"SELECT * FROM {name}")
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("ours", ours)
    table = deltalake.DeltaTable(folder)
    con.register("by_deltalake", pa.table(table.to_pyarrow_table()))
    files = [uri.removeprefix("file://") for uri in table.file_uris()]
    con.execute(f"CREATE VIEW by_duckdb AS FROM read_parquet({files})")
    con.register("by_polars", pl.read_delta(folder).to_arrow())
    ok = ours.num_rows > 0
    for reader in ("by_deltalake", "by_duckdb", "by_polars"):
        columns = [r[0] for r in con.execute(f"DESCRIBE {reader}").fetchall()]
        rows = con.execute(f"SELECT count(*) FROM {reader}").fetchall()[0][0]
        same_columns = [c for c in columns if c not in HIDDEN] == ours.column_names
        wrong = differences(con, "ours", reader, ours.column_names) if same_columns else None
        good = same_columns and rows == ours.num_rows and wrong == 0
        ok &= good
        print(f"{'ok  ' if good else 'FAIL'} {name} {reader.replace('_', ' ')}: {rows:,} rows of {ours.num_rows:,}, "
              + (f"{wrong} differ" if same_columns else f"columns {columns}, ours {ours.column_names}"))
    return ok


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    results = [check(sys.argv[1], sys.argv[2], name) for name in TABLES]
    print("readers_check: " + ("passed" if all(results) else "FAILED"))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
