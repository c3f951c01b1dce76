#!/usr/bin/env python3
"""Clients that push a few rows each into an ONLINE push view, one INSERT after the other, for some seconds.

    push.py --address grpc://… [--clients 16] [--rows 1] [--seconds 10] [--view pushed]

Each client is a thread with an ADBC connection and a prepared INSERT. An answer means: stored and served. At the
end every row is counted, and the last row of each client is looked up.
"""
import argparse
import datetime
import json
import threading
import time

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow as pa

UTC = datetime.timezone.utc


class Client(threading.Thread):
    def __init__(self, args, number, begin):
        super().__init__(daemon=True)
        self.args, self.number, self.begin = args, number, begin
        self.nanos, self.error, self.pushed = [], None, 0
        self.cursor = flight_sql.connect(args.address, autocommit=True).cursor()

    def batch(self):
        first, at = self.number * 1_000_000 + self.pushed, datetime.datetime.now(UTC)
        n = self.args.rows
        return pa.record_batch({"k": pa.array(range(first, first + n), pa.int64()), "at": pa.array([at] * n, pa.timestamp("us", "UTC")),
                                "v": pa.array([float(first)] * n, pa.float64())})

    def push(self):
        self.cursor.executemany(f"INSERT INTO {self.args.view} VALUES ($1, $2, $3)", self.batch())
        self.pushed += self.args.rows

    def run(self):
        try:
            self.push()
            self.begin.wait()
            end = time.perf_counter() + self.args.seconds
            while time.perf_counter() < end:
                start = time.perf_counter_ns()
                self.push()
                self.nanos.append(time.perf_counter_ns() - start)
        except Exception as e:
            self.error = str(e)
            self.begin.abort()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--address", required=True)
    p.add_argument("--clients", type=int, default=16)
    p.add_argument("--rows", type=int, default=1)
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--view", default="pushed")
    args = p.parse_args()
    cursor = flight_sql.connect(args.address, autocommit=True).cursor()

    def number(sql, rows=None):
        cursor.execute(sql, rows)
        return cursor.fetchone()[0]
    stored = number(f"SELECT count(*) FROM {args.view}")
    begin = threading.Barrier(args.clients + 1)
    clients = [Client(args, i, begin) for i in range(args.clients)]
    for c in clients:
        c.start()
    begin.wait(60)
    commits = number(f"SELECT max(offline_version) FROM system.online WHERE view = '{args.view}'")
    for c in clients:
        c.join()
    errors = [c.error for c in clients if c.error]
    if errors:
        raise SystemExit(f"{len(errors)} clients failed, the first: {errors[0]}")
    commits = number(f"SELECT max(offline_version) FROM system.online WHERE view = '{args.view}'") - commits
    pushed, now = sum(c.pushed for c in clients), number(f"SELECT count(*) FROM {args.view}")
    assert now - stored == pushed, f"{now - stored} rows are stored, {pushed} were acknowledged"
    for c in clients:
        last = c.number * 1_000_000 + c.pushed - args.rows
        got = number(f"SELECT v FROM ONLINE_LOOKUP('{args.view}', $1)", pa.record_batch({"$1": pa.array([last], pa.int64())}))
        assert got == float(last), f"key {last} is served as {got}"
    nanos = sorted(n for c in clients for n in c.nanos)
    at = {f"p{q}_us": nanos[min(len(nanos) - 1, len(nanos) * q // 100)] / 1e3 for q in (50, 90, 99)}
    print(json.dumps({"clients": args.clients, "rows": args.rows, "ops": len(nanos), "ops_s": len(nanos) / args.seconds,
                      "rows_s": len(nanos) * args.rows / args.seconds, **at, "max_us": nanos[-1] / 1e3, "commits_s": commits / args.seconds}))


if __name__ == "__main__":
    main()
