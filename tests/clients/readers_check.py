#!/usr/bin/env python3
"""Feature tables and training sets are plain Delta tables: other readers see the same rows.

    readers_check.py REMIGE WAREHOUSE

Opens every Delta table of the demo's warehouse with the Python deltalake package, DuckDB (over the files
that the Delta log lists) and Polars, and compares rows and values with `remige sql`. Files of COPY TO are sorted, filtered and taken from with
pyarrow, DuckDB, Polars and pandas.
"""
import io
import os
import subprocess
import sys
import tempfile

import deltalake
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

HIDDEN = {"_seq"}
TABLES = ["origin_weather", "station_delays", "plane_facts", "late_departures"]
WINDOWED = {"station_delays"}


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
    # what the table of a windowed view holds are its events
    rows_of = f"{name}$events" if name in WINDOWED else name
    ours = run_sql(remige, warehouse, f"SELECT * FROM {rows_of}")
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


ALL_TYPES = """
SELECT id, id % 2 = 0 AS flag, CAST(id AS TINYINT) AS i8, CAST(id AS SMALLINT) AS i16, CAST(id AS INT) AS i32, CAST(id AS FLOAT) AS f32,
  CAST(id AS DOUBLE) / 3 AS f64, CAST(id AS DECIMAL(20, 3)) AS dec, 'text ' || (9 - id) AS s, arrow_cast('view ' || id, 'Utf8View') AS sv,
  arrow_cast('key ' || (id % 2), 'Dictionary(Int32, Utf8)') AS dict, arrow_cast('b' || id, 'Binary') AS b,
  arrow_cast(arrow_cast('b' || id, 'Binary'), 'BinaryView') AS bv, CAST('2026-01-0' || id AS DATE) AS d,
  CAST('2026-01-0' || id || ' 10:00:00' AS TIMESTAMP) AS ts, arrow_cast('2026-01-01 10:00:00', 'Timestamp(Microsecond, Some(\"UTC\"))') AS utc,
  [id, id + 1] AS l, [arrow_cast('x' || id, 'Utf8View')] AS ls, named_struct('a', id, 'b', arrow_cast('y', 'Utf8View')) AS st,
  CASE WHEN id = 2 THEN NULL ELSE 'n' END AS nul
FROM (VALUES (1), (2), (3), (4)) v(id)"""


def plain(t):
    """No view and no dictionary, at any depth."""
    inner = [t.field(i).type for i in range(t.num_fields)]
    return not (pa.types.is_string_view(t) or pa.types.is_binary_view(t) or pa.types.is_dictionary(t)) and all(map(plain, inner))


def works_with(path):
    """Sorts, filters and takes with each reader; what fails raises."""
    table = pq.read_table(path)
    bad = [f.name for f in pq.ParquetFile(path).schema_arrow if not plain(f.type)]
    if bad:
        return f"types {bad}"
    table = table.sort_by([("s", "ascending")])
    if table["id"].to_pylist() != [4, 3, 2, 1] or table["sv"].to_pylist() != ["view 4", "view 3", "view 2", "view 1"]:
        return "pyarrow sorts wrongly"
    if table.take([0, 2])["dict"].to_pylist() != ["key 0", "key 0"] or table.filter(pc.equal(table["s"], "text 6"))["id"].to_pylist() != [3]:
        return "pyarrow takes or filters wrongly"
    if table.filter(pc.equal(table["bv"], b"b2"))["nul"].to_pylist() != [None] or table["ls"].combine_chunks().flatten().to_pylist()[0] != "x4":
        return "pyarrow reads binaries or lists wrongly"
    found = duckdb.sql(f"SELECT id, sv, dict, ls[1], st.b FROM '{path}' WHERE s > 'text 5' ORDER BY sv DESC").fetchall()
    if found != [(3, "view 3", "key 1", "x3", "y"), (2, "view 2", "key 0", "x2", "y"), (1, "view 1", "key 1", "x1", "y")]:
        return f"DuckDB reads {found}"
    frame = pl.read_parquet(path).filter(pl.col("dict") == "key 1").sort("s")
    if frame["id"].to_list() != [3, 1] or frame["ts"].dt.day().to_list() != [3, 1]:
        return "Polars reads wrongly"
    panda = pd.read_parquet(path).sort_values("s")
    if list(panda[panda["dict"] == "key 0"]["id"]) != [4, 2] or list(panda["sv"])[0] != "view 4":
        return "pandas reads wrongly"
    return None


def check_copies(remige):
    """COPY TO Parquet of all types, of a query, a file and a table, and the files of a table itself."""
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        warehouse, one, two, three = (os.path.join(folder, n) for n in ("w", "one.parquet", "two.parquet", "three.parquet"))
        run = lambda sql: subprocess.run([remige, "sql", "-w", warehouse, "-c", sql], check=True, stdout=subprocess.DEVNULL)
        run(f"COPY ({ALL_TYPES}) TO '{one}'")
        run(f"COPY (SELECT * FROM read_parquet('{one}')) TO '{two}'")
        run(f"CREATE TABLE kept AS SELECT * FROM '{one}'")
        run(f"COPY kept TO '{three}'")
        files = [one, two, three] + [os.path.join(p, n) for p, _, names in os.walk(os.path.join(warehouse, "tables")) for n in names if n.endswith(".parquet")]
        ok &= len(files) >= 4
        for path in files:
            wrong = works_with(path)
            ok &= wrong is None
            print(f"{'ok  ' if wrong is None else 'FAIL'} {os.path.basename(path)}: {wrong or 'pyarrow, DuckDB, Polars and pandas work with it'}")
    return ok


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    results = [check(sys.argv[1], sys.argv[2], name) for name in TABLES] + [check_copies(sys.argv[1])]
    print("readers_check: " + ("passed" if all(results) else "FAILED"))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
