#!/usr/bin/env python3
"""Rows per second of REFRESH, MATERIALIZE and INSERT: one view of ten features, one row per key.

    load.py REMIGE [--rows 1000000] [--runs 3]

A source table (Parquet in a Delta table) is refreshed in full and materialized in full into the embedded store
and into a redis-server that this program starts on a free port. Seconds are those of the run in system.runs
for REFRESH and MATERIALIZE (without starting the process), of the process for INSERT; medians.
"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from datetime import datetime

FEATURES = ", ".join(["value % 1000 AS n0", "value % 7 AS n1", "CAST(value AS DOUBLE) / 3 AS n2", "CAST(value % 100 AS DOUBLE) / 4 AS n3",
                      "value * 31 % 10007 AS n4", "sqrt(value) AS n5", "value % 2 = 0 AS n6", "CASE WHEN value % 50 = 0 THEN NULL ELSE value END AS n7",
                      "'city ' || CAST(value % 500 AS VARCHAR) AS s0", "'customer ' || CAST(value AS VARCHAR) AS s1"])
TYPES = "n0 BIGINT, n1 BIGINT, n2 DOUBLE, n3 DOUBLE, n4 BIGINT, n5 DOUBLE, n6 BOOLEAN, n7 BIGINT, s0 VARCHAR, s1 VARCHAR"


def sql(remige, warehouse, text, *flags):
    out = subprocess.run([remige, "sql", "-w", warehouse, *flags, "--format", "json", "-c", text], capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(f"{text}\n{out.stderr}")
    return [json.loads(line) for line in out.stdout.splitlines()]


def timed(rows, statement, *flags):
    """(seconds of the run, rows written, peak MB of the process)."""
    remige, warehouse, text = statement
    p = subprocess.Popen([remige, "sql", "-w", warehouse, *flags, "--format", "json", "-c", text], stdout=subprocess.PIPE, text=True)
    out = p.stdout.read()
    _, code, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(code)
    if p.returncode != 0:
        raise SystemExit(f"{text} failed")
    run = json.loads(out.splitlines()[-1])
    if run["rows_written"] != rows:
        raise SystemExit(f"{text} wrote {run['rows_written']} rows of {rows}")
    seconds = (datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def report(what, rows, got):
    seconds, cpu, peak = (statistics.median(g[i] for g in got) for i in range(3))
    print(f"| {what} | {seconds:.2f} | {rows / seconds:,.0f} | {cpu:.2f} | {peak:,.0f} |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("remige")
    p.add_argument("--rows", type=int, default=1_000_000)
    p.add_argument("--runs", type=int, default=3)
    args = p.parse_args()
    remige, rows = os.path.abspath(args.remige), args.rows
    with tempfile.TemporaryDirectory() as tmp, socket.socket() as free:
        w = os.path.join(tmp, "w")
        sql(remige, w, "CREATE ENTITY customer KEY (customer_id BIGINT)")
        sql(remige, w, "CREATE TABLE src AS SELECT value * 7919 % 1000000007 AS customer_id, to_timestamp_seconds(1735689600 + value % 7776000) AS seen_at, "
                       f"{FEATURES} FROM generate_series(1, {rows})")
        sql(remige, w, "CREATE FEATURE VIEW v ENTITY customer EVENT TIMESTAMP seen_at ONLINE AS SELECT * FROM src")
        print(f"{rows:,} rows, 10 features, median of {args.runs} runs\n")
        print("| statement | seconds | rows/s | CPU s | peak RSS MB |\n|---|---|---|---|---|")
        full = (remige, w, "REFRESH FEATURE VIEW v FULL")
        report("REFRESH … FULL", rows, [timed(rows, full) for _ in range(args.runs)])
        load = (remige, w, "MATERIALIZE FEATURE VIEW v FULL")
        report("MATERIALIZE … FULL, embedded", rows, [timed(rows, load) for _ in range(args.runs)])
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        redis = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", tmp],
                                 stdout=subprocess.DEVNULL)
        try:
            time.sleep(1)
            url = f"redis://127.0.0.1:{port}/0"
            report("MATERIALIZE … FULL, Redis", rows, [timed(rows, load, "--online", url) for _ in range(args.runs)])
        finally:
            redis.kill()
            redis.wait()
        took = []
        for i in range(args.runs):
            sql(remige, w, f"CREATE FEATURE VIEW push{i} ({TYPES}) ENTITY customer EVENT TIMESTAMP seen_at")
            start = time.perf_counter()
            sql(remige, w, f"INSERT INTO push{i} SELECT * FROM src")
            took.append(time.perf_counter() - start)
        print(f"| INSERT into a push view, offline | {statistics.median(took):.2f} | {rows / statistics.median(took):,.0f} | – | – |")


if __name__ == "__main__":
    main()
