#!/usr/bin/env python3
"""The online store beside raw Redis and Feast, on one machine.

    bench.py run --remige target/release/remige --client target/release/examples/online_client --results r.jsonl
    bench.py run … --rows 20000 --runs 1 --seconds 1 --only serve,python
    bench.py report --results r.jsonl --out docs/benchmarks/online.md

Sections (`--only` takes some of them):
  load    MATERIALIZE FULL into an emptied Redis and into the embedded store, incremental MATERIALIZE of 1 %, and
          Feast's materialize of the same file into a Redis of its own (kept in the data folder; `--fresh` does it again)
  big     MATERIALIZE FULL of `--big-rows` entities, for the memory it takes
  serve   1 and 16 clients in closed loops, batches of 1 and 100: raw MGET, tickets, prepared statements, Feast's server
  python  one Python client, batch 100: redis-py, pyarrow.flight, ADBC
  open    requests on a fixed schedule at half of what 16 clients reached
  views   1,000 registered feature views against 10
  push    clients that INSERT 1 or 100 rows at a time into an ONLINE push view: what is sustained, stored and served
Client, servers and stores share the machine's cores. Every run waits until the machine is idle, and is repeated when
other processes took too much of it meanwhile ("others"). Runs take turns: run 0 of all, run 1 of all, ….
"""
import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from datetime import datetime

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))

import machine
import report
import services
from data import CREATED, KEY, TIME, Data

SECTIONS = ["load", "big", "serve", "python", "open", "views", "push"]
SHAPES = [(1, 1), (1, 100), (16, 1), (16, 100)]
CHANGED = 0.01
# clients, rows of an INSERT, push.commit_interval
PUSHES = [(1, 1, "0s"), (16, 1, "0s"), (16, 100, "0s"), (64, 1, "0s"), (64, 1, "100ms")]


def sql(remige, warehouse, text, *flags):
    out = subprocess.run([remige, "sql", "-w", warehouse, *flags, "--format", "json", "-c", text], capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(f"{text[:500]}\n{out.stderr[-2000:]}")
    return [json.loads(line) for line in out.stdout.splitlines()]


def watched(command, **more):
    """(standard output, CPU seconds, peak RSS MB) of a command that must succeed."""
    p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)
    out = p.stdout.read()
    _, code, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(code)
    if p.returncode != 0:
        raise SystemExit(f"{shlex.join(command)[:500]}: exit code {p.returncode}\n{out[-2000:]}")
    return out, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


class Bench:
    def __init__(self, args, stack):
        self.args, self.stack = args, stack
        self.remige, self.client = os.path.abspath(args.remige), os.path.abspath(args.client)
        self.python = os.path.join(os.path.abspath(args.feast_venv), "bin", "python")
        self.data = Data(args.data_dir, args.rows)
        self.scratch = os.path.join(self.data.folder, "run")
        self.services, self.peaks = [], {}

    def note(self, rec):
        with open(self.args.results, "a") as f:
            f.write(json.dumps(rec) + "\n")
        if "session" in rec:
            return
        shown = {k: (round(v, 3) if isinstance(v, float) else v) for k, v in rec.items() if v is not None}
        print("  ".join(f"{k} {v}" for k, v in shown.items()), flush=True)

    def up(self, service):
        self.services.append(service)
        self.stack.callback(self.down, service)
        return service

    def down(self, service):
        service.stop()
        if service in self.services:
            self.services.remove(service)

    def quiet(self, work):
        """Does `work`, which gives a record, until others let it alone; the servers are part of it."""
        args = self.args
        for attempt in range(args.retries + 1):
            machine.wait_until_idle(args.max_others / 2, args.patience)
            cpu = {s.name: s.cpu_seconds() for s in self.services}
            busy, start = machine.busy_seconds(), time.perf_counter()
            rec = work()
            wall = time.perf_counter() - start
            used = {s.name: s.cpu_seconds() - cpu[s.name] for s in self.services}
            others = machine.busy_seconds() - busy - rec["cpu_s"] - sum(used.values())
            rec["servers_cpu_s"] = {name: round(v, 2) for name, v in used.items() if v >= 0.05}
            rec["others"] = max(0.0, others) / (wall * os.cpu_count())
            if rec["others"] <= args.max_others:
                break
        return rec

    # ------------------------------------------------------------------ load

    def declare(self, warehouse, data):
        shutil.rmtree(warehouse, ignore_errors=True)
        sql(self.remige, warehouse, f"""
            CREATE ENTITY entity KEY ({KEY} BIGINT);
            CREATE EXTERNAL TABLE rows_read STORED AS PARQUET LOCATION '{data.source}/';
            CREATE FEATURE VIEW bench ENTITY entity EVENT TIMESTAMP {TIME} CREATED TIMESTAMP {CREATED} ONLINE AS SELECT * FROM rows_read""")
        self.refresh(warehouse, data.rows)

    def refresh(self, warehouse, rows):
        run = sql(self.remige, warehouse, "REFRESH FEATURE VIEW bench")[-1]
        if run["rows_written"] < rows:
            raise SystemExit(f"REFRESH wrote {run['rows_written']} rows, there are {rows}")

    def materialize(self, warehouse, rows, how, *flags):
        """One statement in a process of its own; seconds are those of the run, without starting the process."""
        out, cpu, rss = watched([self.remige, "sql", "-w", warehouse, *flags, "--format", "json", "-c", f"MATERIALIZE FEATURE VIEW bench {how}"])
        run = json.loads(out.splitlines()[-1])
        if not rows <= run["rows_written"] <= rows * 1.01 + 10:
            raise SystemExit(f"MATERIALIZE {how} wrote {run['rows_written']} rows instead of {rows}")
        seconds = (datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()
        return {"rows": rows, "seconds": seconds, "cpu_s": cpu, "rss_mb": rss}

    def load(self):
        warehouse, args = os.path.join(self.scratch, "warehouse-load"), self.args
        self.declare(warehouse, self.data)
        redis = self.up(services.Redis("redis-load", os.path.join(self.scratch, "redis-load")))
        stores = {"redis": ["--online", redis.url], "embedded": []}
        memory = []
        for i in range(args.runs):
            for store, flags in stores.items():
                if store == "redis":
                    redis.ask("FLUSHALL")
                    before = redis.memory_bytes()
                rec = self.quiet(lambda: self.materialize(warehouse, self.data.rows, "FULL", *flags))
                self.note({"section": "load", "engine": "remige", "store": store, "what": "full", "run": i, **rec})
                if store == "redis":
                    memory.append((redis.memory_bytes() - before) / self.data.rows)
        self.note({"section": "memory", "engine": "remige", "bytes_per_row": memory[-1]})
        # each time another 1 % of the entities
        for i in range(args.runs):
            changed = self.data.change(i + 1, CHANGED)
            self.refresh(warehouse, changed)
            for store, flags in stores.items():
                rec = self.quiet_once(lambda: self.materialize(warehouse, changed, "", *flags))
                self.note({"section": "load", "engine": "remige", "store": store, "what": "incremental", "run": i, **rec})
        self.data.forget_changes()
        self.down(redis)
        shutil.rmtree(warehouse)

    def quiet_once(self, work):
        """For what cannot be done twice."""
        retries, self.args.retries = self.args.retries, 0
        try:
            return self.quiet(work)
        finally:
            self.args.retries = retries

    def big(self):
        data = Data(self.args.data_dir, self.args.big_rows)
        data.make()
        warehouse = os.path.join(data.folder, "warehouse")
        self.declare(warehouse, data)
        redis = self.up(services.Redis("redis-big", os.path.join(data.folder, "redis")))
        for store, flags in {"embedded": [], "redis": ["--online", redis.url]}.items():
            rec = self.quiet_once(lambda: self.materialize(warehouse, data.rows, "FULL", *flags))
            self.note({"section": "load", "engine": "remige", "store": store, "what": "big", "run": 0, **rec})
        self.down(redis)
        shutil.rmtree(warehouse)

    # ----------------------------------------------------------------- Feast

    def feast_store(self):
        """A Redis that holds Feast's rows: loaded once, then kept as a dump beside the repository."""
        folder = os.path.join(self.data.folder, "feast")
        stamp, dump = os.path.join(folder, "loaded.json"), os.path.join(folder, "dump.rdb")
        if self.args.fresh:
            shutil.rmtree(folder, ignore_errors=True)
        loaded = os.path.exists(stamp) and os.path.exists(dump)
        if not loaded and os.path.exists(dump):
            os.remove(dump)
        redis = self.up(services.Redis("redis-feast", folder))
        # the address is part of the repository: it changes with the port
        watched([self.python, os.path.join(HERE, "feast_repo.py"), "apply", folder, self.data.file, f"127.0.0.1:{redis.port}"])
        if not loaded:
            def work():
                out, _, rss = watched([self.python, os.path.join(HERE, "feast_repo.py"), "materialize", folder])
                return {**json.loads(out.splitlines()[-1]), "rss_mb": rss}
            rec = {"section": "load", "engine": "feast", "store": "redis", "what": "full", "run": 0, "rows": self.data.rows,
                   **self.quiet_once(work), "date": machine.describe([])["date"], "bytes_per_row": redis.memory_bytes() / self.data.rows}
            redis.ask("SAVE")
            with open(stamp, "w") as f:
                json.dump(rec, f)
        else:
            with open(stamp) as f:
                rec = json.load(f)
        if redis.keys() < self.data.rows:
            raise SystemExit(f"Feast's Redis holds {redis.keys()} keys of {self.data.rows}: --fresh loads it again")
        self.note(rec)
        return folder

    # ----------------------------------------------------------------- serve

    def warehouse(self):
        """Ten registered views, one of them online in both stores; made once per program start."""
        warehouse = os.path.join(self.scratch, "warehouse")
        if not hasattr(self, "redis"):
            self.declare(warehouse, self.data)
            self.register(warehouse, range(9))
            self.redis = self.up(services.Redis("redis", os.path.join(self.scratch, "redis")))
            for flags in ([], ["--online", self.redis.url]):
                self.materialize(warehouse, self.data.rows, "FULL", *flags)
        return warehouse

    def register(self, warehouse, numbers):
        sql(self.remige, warehouse, "".join(
            f"CREATE FEATURE VIEW other_{i} ENTITY entity EVENT TIMESTAMP {TIME} CREATED TIMESTAMP {CREATED} ONLINE AS SELECT * FROM rows_read;"
            for i in numbers))

    def servers(self):
        """Addresses of what answers, by what it is and where its rows lie."""
        if hasattr(self, "addresses"):
            return self.addresses
        warehouse = self.warehouse()
        on_redis = self.up(services.Remige("remige-redis", self.remige, warehouse, self.scratch, self.redis.url))
        embedded = self.up(services.Remige("remige-embedded", self.remige, warehouse, self.scratch))
        self.addresses = {"raw": self.redis.url, "redis": on_redis.address, "embedded": embedded.address}
        if not self.args.no_feast:
            self.addresses["feast"] = self.up(services.Feast("feast", self.args.feast_venv, self.feast_store(), self.scratch)).address
        for store in ("redis", "embedded"):
            feast = ["--feast", self.addresses["feast"]] if "feast" in self.addresses else []
            watched([self.python, os.path.join(HERE, "latency.py"), "--mode", "check", "--address", self.addresses[store], *feast,
                     "--parquet", self.data.file, "--entities", str(self.data.rows)])
        print("answers are the same everywhere", flush=True)
        return self.addresses

    def lineup(self):
        """(mode, store, address)"""
        at = self.servers()
        out = [("raw-mget", "redis", at["raw"])]
        out += [(mode, store, at[store]) for store in ("redis", "embedded") for mode in ("ticket", "prepared")]
        return out + ([("http", "feast", at["feast"])] if "feast" in at else [])

    def rust(self, mode, address, clients, batch, *more):
        def work():
            out, cpu, _ = watched([self.client, "--mode", mode, "--address", address, "--clients", str(clients), "--batch", str(batch),
                                   "--seconds", str(self.args.seconds), "--entities", str(self.data.rows), *more])
            rec = json.loads(out.splitlines()[-1])
            if rec["errors"] or not rec["ops"]:
                raise SystemExit(f"{mode} at {address}: {rec['errors']} errors, the first: {rec['first_error']}")
            return {**rec, "cpu_s": cpu}
        return self.quiet(work)

    def serve(self):
        for i in range(self.args.runs):
            for clients, batch in SHAPES:
                for mode, store, address in self.lineup():
                    self.note({"section": "serve", "store": store, "run": i, **self.rust(mode, address, clients, batch)})

    def python_clients(self):
        def one(mode, address):
            out, cpu, _ = watched([self.python, os.path.join(HERE, "latency.py"), "--mode", mode, "--address", address, "--batch", "100",
                                   "--seconds", str(self.args.seconds), "--entities", str(self.data.rows)])
            return {**json.loads(out.splitlines()[-1]), "cpu_s": cpu}
        for i in range(self.args.runs):
            for mode, store, address in self.lineup():
                if mode != "http":
                    self.note({"section": "python", "store": store, "run": i, **self.quiet(lambda: one(mode, address))})

    def open_loop(self):
        at = self.servers()
        for store in ("redis", "embedded"):
            for batch in (1, 100):
                peak = report.median_of(self.args.results, "ops_s", section="serve", store=store, mode="ticket", clients=16, batch=batch)
                if peak is None:
                    peak = self.rust("ticket", at[store], 16, batch)["ops_s"]
                for i in range(self.args.runs):
                    # more clients than the peak had: whoever is late must not hold back the schedule
                    rec = self.rust("ticket", at[store], 64, batch, "--rate", f"{peak / 2:.1f}")
                    self.note({"section": "open", "store": store, "run": i, "peak": peak, **rec})

    def views(self):
        few = self.warehouse()
        many = os.path.join(self.scratch, "warehouse-1000")
        shutil.rmtree(many, ignore_errors=True)
        shutil.copytree(few, many)
        for first in range(9, 999, 90):
            self.register(many, range(first, first + 90))
        counted = [sql(self.remige, w, "SELECT count(*) AS n FROM system.feature_views")[0]["n"] for w in (few, many)]
        if counted != [10, 1000]:
            raise SystemExit(f"{counted} views are registered")
        up = {n: self.up(services.Remige(f"remige-{n}-views", self.remige, w, self.scratch)) for n, w in zip(counted, (few, many))}
        for i in range(self.args.runs):
            for clients, batch in ((1, 100), (16, 1)):
                for n, server in up.items():
                    rec = self.rust("ticket", server.address, clients, batch)
                    self.note({"section": "views", "store": "embedded", "views": n, "run": i, **rec})
        for server in up.values():
            self.down(server)


    def push(self):
        warehouse = os.path.join(self.scratch, "warehouse-push")
        redis = self.up(services.Redis("redis-push", os.path.join(self.scratch, "redis-push")))
        for i in range(self.args.runs):
            for store, url in {"redis": redis.url, "embedded": "embedded"}.items():
                for clients, rows, interval in PUSHES:
                    shutil.rmtree(warehouse, ignore_errors=True)
                    sql(self.remige, warehouse, f"CREATE ENTITY entity KEY ({KEY} BIGINT); "
                                                f"CREATE FEATURE VIEW pushed (v DOUBLE) ENTITY entity EVENT TIMESTAMP {TIME} ONLINE")
                    server = self.up(services.Remige("remige-push", self.remige, warehouse, self.scratch, url, f"push.commit_interval={interval}",
                                                     "maintenance.optimize_every=10min"))

                    def work():
                        out, cpu, _ = watched([self.python, os.path.join(HERE, "push.py"), "--address", server.address, "--clients", str(clients),
                                               "--rows", str(rows), "--seconds", str(2 * self.args.seconds)])
                        return {**json.loads(out.splitlines()[-1]), "cpu_s": cpu}
                    self.note({"section": "push", "store": store, "interval": interval, "run": i, **self.quiet_once(work)})
                    self.down(server)
        self.down(redis)
        shutil.rmtree(warehouse)


def run(args):
    sections = [s for s in args.only.split(",") if s]
    unknown = set(sections) - set(SECTIONS)
    if unknown:
        raise SystemExit(f"unknown sections: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    os.makedirs(os.path.dirname(os.path.abspath(args.results)), exist_ok=True)
    with contextlib.ExitStack() as stack:
        bench = Bench(args, stack)
        session = machine.describe(("pyarrow",))
        session["versions"] |= {"remige": machine.version_of(args.remige), "redis-server": machine.text("redis-server", "--version").split()[2][2:]}
        installed = subprocess.run([bench.python, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True).stdout
        wanted = ("feast", "redis", "hiredis", "pyarrow", "adbc-driver-flightsql")
        session["versions"] |= {p["name"]: p["version"] for p in json.loads(installed) if p["name"] in wanted}
        session |= {"rows": args.rows, "command": "benches/online/bench.py " + shlex.join(sys.argv[1:])}
        bench.note({"session": session})
        bench.data.make()
        shutil.rmtree(bench.scratch, ignore_errors=True)
        steps = {"load": bench.load, "big": bench.big, "serve": bench.serve, "python": bench.python_clients, "open": bench.open_loop,
                 "views": bench.views, "push": bench.push}
        for name in SECTIONS:
            if name in sections and not (name == "big" and not args.big_rows):
                print(f"== {name}", flush=True)
                steps[name]()
        if "load" in sections and not args.no_feast and not hasattr(bench, "addresses"):
            bench.feast_store()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="mode", required=True)
    r = sub.add_parser("run")
    r.add_argument("--remige", required=True, help="our program")
    r.add_argument("--client", required=True, help="the load client (cargo build --release --example online_client)")
    r.add_argument("--results", required=True, help="JSON lines are appended here")
    r.add_argument("--rows", type=int, default=1_000_000, help="entities")
    r.add_argument("--big-rows", type=int, default=0, help="entities of section big; 0: leave it out")
    r.add_argument("--runs", type=int, default=3)
    r.add_argument("--seconds", type=float, default=5, help="of each run of a client")
    r.add_argument("--only", default=",".join(SECTIONS))
    r.add_argument("--data-dir", default=os.path.join(HERE, "data"))
    r.add_argument("--feast-venv", default=os.path.join(HERE, ".feast"), help="made by setup.sh")
    r.add_argument("--no-feast", action="store_true")
    r.add_argument("--fresh", action="store_true", help="let Feast materialize again, though its rows were kept")
    r.add_argument("--max-others", type=float, default=0.1, help="a run is repeated when other processes took a larger share of the machine")
    r.add_argument("--retries", type=int, default=2)
    r.add_argument("--patience", type=float, default=60, help="seconds to wait for an idle machine before a run")
    t = sub.add_parser("report")
    t.add_argument("--results", nargs="+", required=True)
    t.add_argument("--out", help="write this page; else print")
    args = p.parse_args()
    if args.mode == "run":
        run(args)
        return
    page = report.page(args.results)
    if args.out:
        os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
        with open(args.out, "w") as f:
            f.write(page)
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
