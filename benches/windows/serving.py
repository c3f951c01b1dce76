#!/usr/bin/env python3
"""Windows online: lookups, MATERIALIZE, REFRESH and INSERT of a windowed view, beside a plain one or DuckDB, in one run.

    serving.py REMIGE [--rows 10000000] [--runs 3] --results r.jsonl

The events are those of W-M, the windows its 16 too. A line of results is what is measured, ours, the yardstick, and the
most that their ratio may be. A redis-server is started on a free port.
"""
import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.dirname(HERE), os.path.join(HERE, "../../examples")]

import machine
from data import PRESETS, Data
from lookup_ticket import lookup_ticket
from ours import SQL

KEYS, BATCH = 100_000, 100


class Bench:
    def __init__(self, args, folder):
        self.args, self.program, self.warehouse = args, os.path.abspath(args.remige), os.path.join(folder, "w")
        self.folder = folder

    def sql(self, text, *flags):
        start = time.perf_counter()
        p = subprocess.Popen([self.program, "sql", "-w", self.warehouse, *flags, "--format", "json", "-c", text], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        out, err = p.communicate()
        if p.returncode:
            raise SystemExit(f"{text[:300]}\n{err[-600:]}")
        return time.perf_counter() - start, [json.loads(line) for line in out.splitlines()]

    def note(self, what, ours, yardstick, against, most):
        rec = {"serving": what, "ours": ours, "yardstick": yardstick, "against": against, "most": most}
        with open(self.args.results, "a") as f:
            f.write(json.dumps(rec) + "\n")
        print(f"{what}: {ours:.4g} against {yardstick:.4g} ({against}): {ours / yardstick:.2f}, at most {most}", flush=True)

    def median(self, work):
        return statistics.median(work() for _ in range(self.args.runs))


def windows(d):
    calls = [f"{SQL[a]} OVER {w} AS {a}_{w}" for w, _, _ in d.windows() for a in d.preset["aggregates"]]
    return ", ".join(calls), ", ".join(f"{w} AS (LAST '{length}')" for w, length, _ in d.windows())


def refresh(b, d):
    calls, named = windows(d)
    b.sql(f"""CREATE ENTITY u KEY (id BIGINT); CREATE FEATURE VIEW v ENTITY u EVENT TIMESTAMP ts ONLINE
              AS SELECT {calls} FROM read_parquet('{d.events}') WINDOW {named}""")
    ours = b.median(lambda: b.sql("REFRESH FEATURE VIEW v FULL")[0])
    code = f"""import duckdb, time
start = time.perf_counter()
c = duckdb.connect(); c.execute("SET threads=2"); c.execute("SET temp_directory='{b.folder}'")
c.execute("COPY (SELECT id, ts, x FROM '{d.events}' ORDER BY id, ts) TO '{b.folder}/sorted.parquet' (FORMAT parquet, COMPRESSION zstd)")"""

    def duckdb():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start
    b.note("REFRESH FULL of the events, s", ours, b.median(duckdb), "DuckDB writes them sorted", 1.5)


def materialize(b, d, url):
    for store, flags in (("embedded", []), ("Redis", ["--online", url])):
        took = b.median(lambda: b.sql("MATERIALIZE FEATURE VIEW v FULL", *flags)[0])
        b.note(f"MATERIALIZE FULL, {store}, s", took, d.preset["events"] / 1e6, "1 M events a second", 1)


def incremental(b, d):
    calls, named = windows(d)
    b.sql(f"""CREATE FEATURE VIEW p (x DOUBLE) ENTITY u EVENT TIMESTAMP ts ONLINE
              AS SELECT {calls} FROM PUSHED WINDOW {named}; INSERT INTO p SELECT id, ts, x FROM read_parquet('{d.events}')""")
    full = b.median(lambda: b.sql("MATERIALIZE FEATURE VIEW p FULL")[0])
    b.sql("ALTER FEATURE VIEW p SET OFFLINE")
    some = d.preset["events"] // 100
    for what, key, most in (("1 % of keys", f"value % {KEYS // 100}", 0.1), ("all keys", f"value % {KEYS}", 0.6)):
        b.sql("ALTER FEATURE VIEW p SET ONLINE; MATERIALIZE FEATURE VIEW p FULL; ALTER FEATURE VIEW p SET OFFLINE")
        b.sql("ALTER FEATURE VIEW p SET ONLINE")
        took, _ = b.sql(f"INSERT INTO p SELECT {key}, TIMESTAMP '2026-04-01' + CAST((value % 1000000) || ' milliseconds' AS INTERVAL), 1.5 "
                        f"FROM generate_series(1, {some})")
        b.note(f"INSERT of 1 % new events of {what}, online, s", took, full, "MATERIALIZE FULL", most)


def serve(b, url=None):
    flags = ["--online", url] if url else []
    p = subprocess.Popen([b.program, "serve", "-w", b.warehouse, "--listen", "127.0.0.1:0", *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return p, p.stdout.readline().removeprefix("remige ready ").strip()


def lookups(b):
    import pyarrow as pa
    import pyarrow.flight as flight
    features = ", ".join(f"{'1.5' if i % 4 else '7'} AS f{i}" for i in range(16))
    b.sql(f"""CREATE FEATURE VIEW plain ENTITY u EVENT TIMESTAMP ts ONLINE AS SELECT value AS id, TIMESTAMP '2026-03-01' AS ts, {features}
              FROM generate_series(0, {KEYS - 1}); REFRESH FEATURE VIEW plain; MATERIALIZE FEATURE VIEW plain; MATERIALIZE FEATURE VIEW v FULL""")
    server, address = serve(b)
    try:
        client, p50 = flight.connect(address.replace("grpc://", "grpc+tcp://")), {}
        for view in ("v", "plain") * 2:
            tickets = [flight.Ticket(lookup_ticket(view, pa.record_batch({"id": pa.array(random.sample(range(KEYS), BATCH), pa.int64())}))) for _ in range(400)]
            times = []
            for t in tickets * 2:
                start = time.perf_counter()
                assert client.do_get(t).read_all().num_rows == BATCH
                times.append(time.perf_counter() - start)
            p50[view] = statistics.median(times[400:]) * 1e3
        b.note(f"lookup of {BATCH} keys × 16 windows, p50, ms", p50["v"], p50["plain"], "a plain view of 16 features", 2)
    finally:
        server.terminate()
        server.wait()


def inserts(b, d):
    calls, named = windows(d)
    b.sql(f"""CREATE FEATURE VIEW pw (x DOUBLE) ENTITY u EVENT TIMESTAMP ts ONLINE AS SELECT {calls} FROM PUSHED WINDOW {named};
              CREATE FEATURE VIEW pp (x DOUBLE) ENTITY u EVENT TIMESTAMP ts ONLINE""")
    server, address = serve(b)
    try:
        import adbc_driver_flightsql.dbapi as dbapi
        rates = {"pw": [], "pp": []}
        for view in ("pw", "pp") * 3:
            done, end = [0] * 16, time.perf_counter() + 6

            def push(i):
                with dbapi.connect(address, autocommit=True) as db, db.cursor() as cursor:
                    while time.perf_counter() < end:
                        cursor.execute(f"INSERT INTO {view} VALUES ({i * 100_000 + done[i]}, now(), 1.5)")
                        done[i] += 1
            threads = [threading.Thread(target=push, args=(i,)) for i in range(16)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            rates[view].append(sum(done) / 6)
        ours, plain = (statistics.median(rates[v]) for v in ("pw", "pp"))
        b.note("time of an INSERT of one row, 16 clients, ms", 16e3 / ours, 16e3 / plain, "a plain push view", round(1 / 0.7, 2))
    finally:
        server.terminate()
        server.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("remige")
    p.add_argument("--preset", default="W-M", choices=PRESETS)
    p.add_argument("--data-dir", default=os.path.join(HERE, "data"))
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--results", required=True)
    args = p.parse_args()
    d = Data(args.preset, args.data_dir)
    d.make()
    folder = tempfile.mkdtemp(dir=d.path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    redis = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder], stdout=subprocess.DEVNULL)
    try:
        machine.wait_until_idle(0.05, 30)
        b = Bench(args, folder)
        refresh(b, d)
        materialize(b, d, f"redis://127.0.0.1:{port}/0")
        lookups(b)
        inserts(b, d)
        incremental(b, d)
    finally:
        redis.kill()
        redis.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
