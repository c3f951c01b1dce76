#!/usr/bin/env python3
"""Computes the demo's training set and its online values again, in DuckDB, from the raw files.

    demo_check.py REMIGE WAREHOUSE [--training examples/out/late_departures.parquet] [--data examples/data]

Nothing of the demo's SQL is used here: the three-hour windows are counted with a range join instead of a
window function, the point-in-time rule is written out as DuckDB's own ASOF join plus the TTL. Every row and
every value must be the same: floats bit for bit, no row missing, none more.
"""
import argparse
import io
import subprocess
import sys

import duckdb
import pyarrow as pa

KEYS = ["carrier", "flight", "origin", "tailnum", "dest", "scheduled_at", "predict_at", "late", "distance", "utc_hour"]
FEATURES = ["temperature", "wind_speed", "visibility", "precipitation", "pressure", "departures_3h", "avg_delay_3h",
            "late_share_3h", "minutes_since_departure", "seats", "engines", "plane_age", "haul"]
TRAINING_END = "2013-12-30 00:00:00+00"
ASKED_AT = "2013-12-31 00:00:00+00"
LOOKUP_KEYS = ["origin", "carrier", "tailnum", "distance"]


def prepare(con, data):
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"""
        CREATE TABLE departures AS
        SELECT *, time_hour + to_minutes(minute) AS scheduled_at,
               time_hour + to_minutes(minute) + to_minutes(dep_delay) AS departed_at
        FROM read_parquet('{data}/flights.parquet')""")
    con.execute(f"""
        CREATE TABLE weather AS
        SELECT origin, time_hour + INTERVAL 1 HOUR AS observed_at, temp AS temperature, wind_speed,
               visib AS visibility, precip AS precipitation, pressure
        FROM read_parquet('{data}/weather.parquet')""")
    con.execute(f"""
        CREATE TABLE planes AS
        SELECT tailnum, year AS built, seats, engines FROM read_parquet('{data}/planes.parquet')""")


def joined(con, name, asked, instant):
    """The service's features for each row of `asked` at its column `instant`."""
    con.execute(f"""
        CREATE TABLE {name} AS
        WITH w AS (
            SELECT a.*, w.* EXCLUDE (origin) FROM {asked} a
            ASOF LEFT JOIN weather w ON w.origin = a.origin AND w.observed_at <= a.{instant}
        ), s AS (
            SELECT i.carrier, i.origin, i.{instant} AS at, max(x.departed_at) AS departed_at, count(x.departed_at) AS departures_3h,
                   count(*) FILTER (WHERE x.dep_delay > 15) AS late_3h, sum(x.dep_delay)::DOUBLE / count(x.departed_at) AS avg_delay_3h
            FROM (SELECT DISTINCT carrier, origin, {instant} FROM {asked}) i
            LEFT JOIN departures x ON x.carrier = i.carrier AND x.origin = i.origin
                 AND x.departed_at BETWEEN i.{instant} - INTERVAL 3 HOURS AND i.{instant}
            GROUP BY ALL
        ), d AS (
            SELECT w.*, s.departed_at, s.departures_3h, s.late_3h, s.avg_delay_3h FROM w
            JOIN s ON s.carrier = w.carrier AND s.origin = w.origin AND s.at = w.{instant}
        ), fresh AS (
            SELECT *, {instant} - observed_at <= INTERVAL 3 HOURS AS w_live FROM d
        )
        SELECT f.*,
               departures_3h = 0 AS no_departures,
               f.observed_at IS NOT NULL AND NOT w_live AS weather_too_old,
               p.seats, p.engines, extract(year FROM {instant}) - p.built AS plane_age,
               late_3h::DOUBLE / nullif(departures_3h, 0) AS late_share_3h,
               (epoch({instant}) - epoch(departed_at)) / 60 AS minutes_since_departure,
               CASE WHEN distance < 500 THEN 'short' WHEN distance < 1500 THEN 'medium' ELSE 'long' END AS haul
        FROM (SELECT * REPLACE ({", ".join(f"CASE WHEN w_live THEN {c} END AS {c}" for c in FEATURES[:5])}) FROM fresh) f
        LEFT JOIN planes p ON p.tailnum = f.tailnum""")


def compare(con, what, want, got, columns, unique):
    """Both sides as multisets of typed rows; the first differences are printed column by column."""
    kinds = {"scheduled_at": "TIMESTAMPTZ", "predict_at": "TIMESTAMPTZ", "late": "BOOLEAN", "carrier": "VARCHAR", "origin": "VARCHAR",
             "tailnum": "VARCHAR", "dest": "VARCHAR", "haul": "VARCHAR", "flight": "BIGINT", "distance": "BIGINT",
             "utc_hour": "BIGINT", "departures_3h": "BIGINT", "seats": "BIGINT", "engines": "BIGINT", "plane_age": "BIGINT"}
    typed = ", ".join(f"{c}::{kinds.get(c, 'DOUBLE')} AS {c}" for c in columns)
    for side, source in (("want_rows", want), ("got_rows", got)):
        con.execute(f"CREATE OR REPLACE TEMP TABLE {side} AS SELECT {typed} FROM {source}")
    rows = [con.execute(f"SELECT count(*) FROM {t}").fetchall()[0][0] for t in ("want_rows", "got_rows")]
    missing = con.execute("SELECT count(*) FROM (FROM want_rows EXCEPT ALL FROM got_rows)").fetchall()[0][0]
    extra = con.execute("SELECT count(*) FROM (FROM got_rows EXCEPT ALL FROM want_rows)").fetchall()[0][0]
    ok = rows[0] == rows[1] and rows[0] > 0 and missing == 0 and extra == 0
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {rows[1]:,} rows, {rows[0]:,} expected; {missing:,} missing, {extra:,} unexpected")
    if not ok:
        same_key = " AND ".join(f"w.{k} IS NOT DISTINCT FROM g.{k}" for k in unique)
        for c in [c for c in columns if c not in unique]:
            n, example = con.execute(f"""
                SELECT count(*), any_value((w.{c}::VARCHAR, g.{c}::VARCHAR, {", ".join(f"w.{k}::VARCHAR" for k in unique)}))
                FROM want_rows w JOIN got_rows g ON {same_key} WHERE w.{c} IS DISTINCT FROM g.{c}""").fetchall()[0]
            if n:
                print(f"     {c}: {n:,} rows differ, for example (expected, found, key) {example}")
    return ok


def run_sql(remige, warehouse, sql):
    done = subprocess.run([remige, "sql", "-w", warehouse, "--format", "arrow", "-c", sql], capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{sql}\n{done.stderr.decode()}")
    return pa.ipc.open_stream(io.BytesIO(done.stdout)).read_all()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("remige", help="the binary")
    p.add_argument("warehouse", help="where examples/flights.sql has run")
    p.add_argument("--training", default="examples/out/late_departures.parquet")
    p.add_argument("--data", default="examples/data")
    args = p.parse_args()
    con = duckdb.connect()
    prepare(con, args.data)
    ok = True

    con.execute(f"""
        CREATE TABLE asked AS
        SELECT *, scheduled_at - INTERVAL 1 HOUR AS predict_at, dep_delay > 15 AS late,
               extract(hour FROM scheduled_at - INTERVAL 1 HOUR) AS utc_hour
        FROM (SELECT carrier, flight, origin, tailnum, dest, scheduled_at, distance, dep_delay FROM departures)
        WHERE dep_delay IS NOT NULL AND scheduled_at < TIMESTAMPTZ '{TRAINING_END}'""")
    joined(con, "training", "asked", "predict_at")
    leaks = con.execute("""
        SELECT count(*) FROM asked a JOIN departures d USING (carrier, flight, origin, scheduled_at)
        WHERE d.departed_at <= a.predict_at""").fetchall()[0][0]
    print(f"{'FAIL' if leaks else 'ok  '} flights that had left when their outcome is predicted: {leaks}")
    ok &= leaks == 0
    ok &= compare(con, "training set", "training", f"read_parquet('{args.training}')", KEYS + FEATURES,
                  ["carrier", "flight", "origin", "scheduled_at"])
    delta = run_sql(args.remige, args.warehouse, "SELECT * FROM late_departures")
    con.register("delta_rows", delta)
    ok &= compare(con, "training set, read by its name", "training", "delta_rows", KEYS + FEATURES,
                  ["carrier", "flight", "origin", "scheduled_at"])
    old, oldw, nulls = con.execute("""
        SELECT count(*) FILTER (WHERE no_departures), count(*) FILTER (WHERE weather_too_old),
               count(*) FILTER (WHERE seats IS NULL) FROM training""").fetchall()[0]
    print(f"     of these, without departures in three hours {old:,}; weather too old for its TTL {oldw:,}; without a plane {nulls:,}")
    ok &= old > 0 and nulls > 0  # else the comparison says nothing about TTL and missing keys

    con.execute(f"""
        CREATE TABLE online_asked AS
        SELECT origin, carrier, tailnum, min(distance) AS distance, TIMESTAMPTZ '{ASKED_AT}' AS asked_at
        FROM departures GROUP BY ALL""")
    joined(con, "online_want", "online_asked", "asked_at")
    columns = ", ".join(LOOKUP_KEYS + FEATURES)
    at = f"TIMESTAMP '{ASKED_AT[:19]}'"
    online = run_sql(args.remige, args.warehouse,
                     f"SELECT {columns} FROM ONLINE_LOOKUP('departure_delay_v1', (SELECT {', '.join(LOOKUP_KEYS)} FROM every_key), at => {at})")
    con.register("online_rows", online)
    ok &= compare(con, "online values", "online_want", "online_rows", LOOKUP_KEYS + FEATURES, LOOKUP_KEYS[:3])
    offline = run_sql(args.remige, args.warehouse,
                      "SELECT " + ", ".join(f"k.{c}" for c in LOOKUP_KEYS) + ", " + ", ".join(f"f.{c}" for c in FEATURES)
                      + " FROM every_key k ASOF JOIN departure_delay_v1 f AT k.asked_at")
    con.register("offline_rows", offline)
    ok &= compare(con, "offline values", "online_want", "offline_rows", LOOKUP_KEYS + FEATURES, LOOKUP_KEYS[:3])
    live = con.execute("SELECT count(*) FROM online_want WHERE departures_3h > 0").fetchall()[0][0]
    ok &= 0 < live < online.num_rows
    print(f"     of these, with recent departures: {live:,} of {online.num_rows:,} keys")
    print("demo_check: " + ("passed" if ok else "FAILED"))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
