"""The engines that run inside Python, and the bare scan. Each writes the same result and returns its seconds
without interpreter start and imports."""
import os
import time

from data import CREATED, TS


def duckdb_asof(d, out, threads):
    import duckdb
    start = time.perf_counter()
    con = duckdb.connect()
    con.execute(f"SET threads={threads}")
    con.execute("SET preserve_insertion_order=false")
    con.execute(f"SET temp_directory='{os.path.dirname(out)}'")
    cols, joins = ["l.*"], []
    for v in d.views:
        near = f"epoch_us(l.{TS}) - epoch_us({v}.{TS}) <= {d.ttl_us}"
        cols += [f"CASE WHEN {near} THEN {v}.{c} END AS {v}__{c}" for c in d.features]
        source = f"read_parquet('{d.file(v)}')"
        if d.has_ties:
            source = (f"(FROM {source} QUALIFY row_number() OVER "
                      f"(PARTITION BY {', '.join(d.keys)}, {TS} ORDER BY {CREATED} DESC) = 1)")
        on = " AND ".join(f"l.{k} = {v}.{k}" for k in d.keys)
        joins.append(f"ASOF LEFT JOIN {source} {v} ON {on} AND l.{TS} >= {v}.{TS}")
    con.execute(f"COPY (SELECT {', '.join(cols)} FROM read_parquet('{d.labels}') l {' '.join(joins)}) "
                f"TO '{out}' (FORMAT parquet, COMPRESSION snappy)")
    return time.perf_counter() - start


def polars_asof(d, out, threads, streaming=True):
    import polars as pl
    from datetime import timedelta
    start = time.perf_counter()
    sort = [*d.keys, TS] if streaming else [TS]
    tie = [CREATED] if d.has_ties else []
    q = pl.scan_parquet(d.labels).sort(sort)
    for v in d.views:
        right = (pl.scan_parquet(d.file(v))
                 .select(*d.keys, TS, *tie, *[pl.col(c).alias(f"{v}__{c}") for c in d.features])
                 .sort(sort + tie).drop(tie))
        q = q.join_asof(right, on=TS, by=d.keys, strategy="backward", check_sortedness=False,
                        tolerance=timedelta(microseconds=d.ttl_us))
    if streaming:
        q.sink_parquet(out, compression="snappy", engine="streaming")
    else:
        q.collect(engine="in-memory").write_parquet(out, compression="snappy")
    return time.perf_counter() - start


def polars_inmem(d, out, threads):
    return polars_asof(d, out, threads, streaming=False)


def pandas_asof(d, out, threads):
    import pandas as pd
    start = time.perf_counter()
    df = pd.read_parquet(d.labels).sort_values(TS)
    tie = [CREATED] if d.has_ties else []
    for v in d.views:
        right = pd.read_parquet(d.file(v), columns=d.view_columns()).sort_values([TS, *tie])
        right = right.drop(columns=tie).rename(columns={c: f"{v}__{c}" for c in d.features})
        df = pd.merge_asof(df, right, on=TS, by=d.keys, tolerance=pd.Timedelta(d.ttl_us, "us"))
    df.to_parquet(out, compression="snappy", index=False)
    return time.perf_counter() - start


def scan(d, out, threads):
    """Decodes every column that the join must read into Arrow arrays, with pyarrow on all threads, and drops them:
    nothing is joined and nothing is written. A yardstick, not a floor: who skips pages without a match, or decodes
    faster than pyarrow, may be below it."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    start = time.perf_counter()
    pa.set_cpu_count(threads)
    for path, columns in [(d.labels, None)] + [(d.file(v), d.view_columns()) for v in d.views]:
        scanner = ds.dataset(path).scanner(columns=columns, batch_size=65_536, batch_readahead=4, fragment_readahead=1)
        for _ in scanner.to_batches():
            pass
    return time.perf_counter() - start


ENGINES = {
    "duckdb": duckdb_asof,
    "polars": polars_asof,
    "polars-inmem": polars_inmem,
    "pandas": pandas_asof,
    "scan": scan,
}
NO_ANSWER = {"scan"}
