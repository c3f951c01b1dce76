#!/usr/bin/env python3
"""Every aggregate over a window, for planes of the flights, against DuckDB, which counts the events of each label by a range join.

    windows_duckdb.py REMIGE [--data examples/data]
"""
import argparse
import io
import math
import os
import subprocess
import sys
import tempfile

import duckdb
import pyarrow as pa

# the length and the step of each window, written down here once more, in microseconds; 1: no step
DAY = 86_400_000_000
WINDOWS = {"LAST '7 days' EXACT": (7 * DAY, 1), "LAST '30 days'": (30 * DAY, DAY // 8), "LAST '2 days' EVERY '1 hour'": (2 * DAY, DAY // 24)}
# in Remige, and in DuckDB over the events e of one label
AGGREGATES = {
    "count(*)": "count(e.t)", "count(delay)": "count(e.delay)", "count(DISTINCT dest)": "count(DISTINCT e.dest)", "sum(distance)": "sum(e.distance)",
    "sum(delay)": "sum(e.delay)", "avg(delay)": "avg(e.delay)", "min(dest)": "min(e.dest)", "max(delay)": "max(e.delay)",
    "var_pop(delay)": "var_pop(e.delay)", "var_samp(delay)": "var_samp(e.delay)", "stddev_pop(delay)": "stddev_pop(e.delay)",
    "stddev_samp(distance)": "stddev_samp(e.distance)", "bool_and(delay < 15)": "bool_and(e.delay < 15)", "bool_or(delay > 60)": "bool_or(e.delay > 60)",
    "first_value(dest)": "first(e.dest ORDER BY e.t)", "last_value(delay)": "last(e.delay ORDER BY e.t)",
    "first_n(dest, 3)": "list(e.dest ORDER BY e.t)[1:3]", "last_n(distance, 3)": "list(e.distance ORDER BY e.t DESC)[1:3]",
    "min_by(dest, distance)": None, "max_by(delay, t)": "arg_max_null(e.delay, e.t)", "top_k(dest, 2)": None,
    "sum(distance) FILTER (WHERE dest = 'ORD')": "sum(e.distance) FILTER (WHERE e.dest = 'ORD')",
}


def by_hand(aggregate, events):
    """What DuckDB has no function of this meaning for. Events: (instant, dest, distance), in the order of time."""
    if aggregate.startswith("top_k"):
        seen = {}
        for _, dest, _ in events:
            seen[dest] = seen.get(dest, 0) + 1
        return [d for d, _ in sorted(seen.items(), key=lambda s: (-s[1], s[0]))[:2]] or None
    best = None
    for _, dest, distance in events:
        if best is None or distance <= best[0]:
            best = (distance, dest)
    return best and best[1]


def same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return a == b


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("remige")
    p.add_argument("--data", default="examples/data")
    args = p.parse_args()
    flights = os.path.abspath(os.path.join(args.data, "flights.parquet"))
    with tempfile.TemporaryDirectory() as tmp:
        def run(sql):
            done = subprocess.run([args.remige, "sql", "-w", os.path.join(tmp, "w"), "--format", "arrow", "-c", sql], capture_output=True)
            if done.returncode != 0:
                sys.exit(f"{sql}\n{done.stderr.decode()}")
            return done.stdout

        run("CREATE ENTITY plane KEY (tailnum VARCHAR)")
        run(f"""CREATE TABLE ev AS SELECT tailnum, time_hour + CAST(minute || ' minutes' AS INTERVAL) AS t, CAST(dep_delay AS DOUBLE) AS delay, dest,
                CAST(distance AS BIGINT) AS distance FROM read_parquet('{flights}') WHERE tailnum IN ('N14228', 'N725MQ', 'N324AA', 'N298WN')""")
        features = [(f"f{w}_{i}", a, window) for w, window in enumerate(WINDOWS) for i, a in enumerate(AGGREGATES)]
        run("CREATE FEATURE VIEW v ENTITY plane EVENT TIMESTAMP t AS SELECT " + ", ".join(f"{a} OVER {w} AS {n}" for n, a, w in features) + " FROM ev")
        run("REFRESH FEATURE VIEW v")
        run("""CREATE TABLE labels AS SELECT row_number() OVER (ORDER BY tailnum, t) AS n, tailnum, t - INTERVAL '37 minutes' AS at FROM ev
               UNION ALL SELECT 100000, 'nobody', TIMESTAMP '2013-05-01'""")
        table = lambda sql: pa.ipc.open_stream(io.BytesIO(run(sql))).read_all()
        got = {r["n"]: r for r in table("SELECT l.n, f.* FROM labels l ASOF JOIN v f AT l.at").to_pylist()}
        con = duckdb.connect()
        con.execute("SET TimeZone = 'UTC'")
        for name in ("ev", "labels"):
            con.register(name, table(f"SELECT * FROM {name}"))
        wrong, compared = 0, 0
        for window, (length, step) in WINDOWS.items():
            known = [(n, a) for n, a, w in features if w == window and AGGREGATES[a]]
            by_window = f"""FROM labels l LEFT JOIN ev e ON e.tailnum = l.tailnum AND e.t <= l.at
                AND epoch_us(e.t) >= (epoch_us(l.at) - {length}) // {step} * {step}"""
            want = con.execute(f"SELECT l.n, {', '.join(AGGREGATES[a] for _, a in known)} {by_window} GROUP BY l.n").fetchall()
            lists = con.execute(f"SELECT l.n, list((epoch_us(e.t), e.dest, e.distance) ORDER BY e.t) FILTER (WHERE e.t IS NOT NULL) {by_window} GROUP BY l.n")
            events = {n: found or [] for n, found in lists.fetchall()}
            for n, *values in want:
                expected = dict(zip((f for f, _ in known), values))
                expected |= {f: by_hand(a, events[n]) for f, a, w in features if w == window and not AGGREGATES[a]}
                for feature, a, w in features:
                    if w != window:
                        continue
                    value = expected[feature]
                    if isinstance(value, list) and not events[n]:
                        value = None
                    compared += 1
                    if not same(value, got[n][feature]):
                        wrong += 1
                        if wrong < 10:
                            print(f"FAIL {a} OVER {window}, label {n}: {got[n][feature]!r}, DuckDB {value!r}")
    ok = wrong == 0 and compared > 50_000
    print(f"{'ok  ' if ok else 'FAIL'} {compared:,} values of {len(AGGREGATES)} aggregates over {len(WINDOWS)} windows, {wrong:,} differ")
    print("windows_duckdb: " + ("passed" if ok else "FAILED"))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
