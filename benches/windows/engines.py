"""The rivals. Each writes one Parquet file: n of the label, and <aggregate>_<window> of the events in the window.

A window of length W with step h, as of t, holds the events from floor_h(t - W) to t, both ends included (docs/windows.md);
h is 1 microsecond where the window is exact.
"""
import time

CALLS = {"count": "count({})", "sum": "sum({})", "avg": "avg({})", "max": "max({})"}


def connect(out, threads):
    import os

    import duckdb
    con = duckdb.connect()
    con.execute(f"SET threads={threads}")
    con.execute("SET preserve_insertion_order=false")
    con.execute(f"SET temp_directory='{os.path.dirname(out)}'")
    return con


def older_end(t, length, step):
    return f"({t} - {length})" if step == 1 else f"(({t} - {length}) // {step} * {step})"


def write(con, query, out):
    con.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION snappy)")


def duckdb_union(d, steps, out, threads):
    """Window functions over labels and events in one relation."""
    start = time.perf_counter()
    con = connect(out, threads)
    frames, calls = [], []
    for w, _, length in d.windows():
        reach = length if steps[w] == 1 else f"(t - {older_end('t', length, steps[w])})"
        frames.append(f"{w} AS (PARTITION BY id ORDER BY t RANGE BETWEEN {reach} PRECEDING AND CURRENT ROW)")
        calls += [f"{CALLS[a].format('x')} OVER {w} AS {a}_{w}" for a in d.preset["aggregates"]]
    write(con, f"""SELECT * EXCLUDE (is_label) FROM (
        SELECT n, n IS NOT NULL AS is_label, {', '.join(calls)} FROM (
            SELECT id, epoch_us(ts) AS t, x, NULL::BIGINT AS n FROM '{d.events}' UNION ALL SELECT id, epoch_us("at"), NULL, n FROM '{d.labels}')
        WINDOW {', '.join(frames)}) WHERE is_label""", out)
    return time.perf_counter() - start


def duckdb_range(d, steps, out, threads):
    """A join of each label with the events of its longest window, and aggregates with a filter."""
    start = time.perf_counter()
    con = connect(out, threads)
    longest = max(d.windows(), key=lambda w: w[2])[0]
    ends = {w: older_end("l.t", length, steps[w]) for w, _, length in d.windows()}
    calls = [f"{CALLS[a].format('e.x')} FILTER (WHERE e.t >= {ends[w]}) AS {a}_{w}" for w, _, _ in d.windows() for a in d.preset["aggregates"]]
    write(con, f"""WITH l AS (SELECT n, id, epoch_us("at") AS t FROM '{d.labels}'), e AS (SELECT id, epoch_us(ts) AS t, x FROM '{d.events}')
        SELECT l.n, {', '.join(calls)} FROM l LEFT JOIN e ON e.id = l.id AND e.t <= l.t AND e.t >= {ends[longest]} GROUP BY l.n""", out)
    return time.perf_counter() - start


def duckdb_sums(d, steps, out, threads):
    """Running counts, and two ASOF joins for each window: for counts only."""
    start = time.perf_counter()
    con = connect(out, threads)
    joins, calls = ["ASOF LEFT JOIN e b ON b.id = l.id AND b.t <= l.t"], []
    for w, _, length in d.windows():
        joins.append(f"ASOF LEFT JOIN e {w} ON {w}.id = l.id AND {w}.t < {older_end('l.t', length, steps[w])}")
        calls.append(f"coalesce(b.c, 0) - coalesce({w}.c, 0) AS count_{w}")
    write(con, f"""WITH l AS (SELECT n, id, epoch_us("at") AS t FROM '{d.labels}'),
            e AS (SELECT id, t, max(c) AS c FROM (SELECT id, epoch_us(ts) AS t, row_number() OVER (PARTITION BY id ORDER BY ts) AS c
                  FROM '{d.events}') GROUP BY id, t)
        SELECT l.n, {', '.join(calls)} FROM l {' '.join(joins)}""", out)
    return time.perf_counter() - start


def polars_rolling(d, steps, out, threads):
    """Rolling aggregates over labels and events in one frame; it knows windows without a step only."""
    import polars as pl
    start = time.perf_counter()
    words = {"1 hour": "1h", "1 day": "1d", "7 days": "7d", "30 days": "30d"}
    e = pl.scan_parquet(d.events).select("id", pl.col("ts").alias("t"), "x", pl.lit(None, pl.Int64).alias("n"))
    u = pl.scan_parquet(d.labels).select("id", pl.col("at").alias("t"), pl.lit(None, pl.Float64).alias("x"), "n")
    # an event at the label's instant belongs to its window: events come first among equals
    frame = pl.concat([e, u]).collect().sort("id", "t", maintain_order=True)
    calls = {"count": lambda w: pl.col("x").is_not_null().cast(pl.Int64).rolling_sum_by("t", w, closed="both"),
             "sum": lambda w: pl.col("x").rolling_sum_by("t", w, closed="both"),
             "avg": lambda w: pl.col("x").rolling_mean_by("t", w, closed="both"),
             "max": lambda w: pl.col("x").rolling_max_by("t", w, closed="both")}
    columns = [calls[a](words[length]).over("id").alias(f"{a}_{w}") for w, length, _ in d.windows() for a in d.preset["aggregates"]]
    frame.with_columns(columns).filter(pl.col("n").is_not_null()).select("n", *d.columns()).write_parquet(out, compression="snappy")
    return time.perf_counter() - start


ENGINES = {"duckdb-union": duckdb_union, "duckdb-range": duckdb_range, "duckdb-sums": duckdb_sums, "polars": polars_rolling}


def able(engine, d):
    """Why an engine cannot do this at all; `None`: it can."""
    if engine == "duckdb-sums" and set(d.preset["aggregates"]) - {"count"}:
        return "a maximum is no difference of running sums"
    if engine in ("polars", "datafusion") and not d.preset["exact"]:
        return "its frames have no step"
    return None
