#!/usr/bin/env python3
"""Two servers over one warehouse run REFRESH EVERY: each tick once, also where one of them is killed in the
middle of a run, and the one that is left goes on.

    schedule_check.py REMIGE [KILLS [SEED]]
"""
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

EVERY = 2
VIEWS = ["slow", "quick", "reader"]
# Far beyond what anything here takes: who hangs is stopped here.
HANG = 180


def sql(remige, warehouse, text):
    out = subprocess.run([remige, "sql", "-w", warehouse, "--format", "json", "-c", text], capture_output=True, text=True, timeout=HANG)
    assert out.returncode == 0, f"{text}\n{out.stderr}"
    return [json.loads(line) for line in out.stdout.splitlines()]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, remige, warehouse):
        self.metrics = free_port()
        self.process = subprocess.Popen(
            [remige, "serve", "-w", warehouse, "--listen", "127.0.0.1:0", "--metrics", f"127.0.0.1:{self.metrics}",
             "--set", "schedule.check_every=200ms", "--set", "schedule.retry_first=1s", "--set", "server.freshness_every=500ms"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ready = self.process.stdout.readline()
        assert ready.startswith("remige ready "), ready

    def scrape(self):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=HANG).read().decode()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=HANG)
        assert code == 0, f"the server ended with {code} after SIGTERM"


def until(what, probe, within=HANG):
    end = time.monotonic() + within
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        time.sleep(0.2)
    sys.exit(f"never: {what}")


def done(remige, w, kind="refresh"):
    rows = sql(remige, w, "SELECT object, count(*) AS n FROM system.runs"
                          f" WHERE kind = '{kind}' AND status = 'succeeded' GROUP BY object")
    return {r["object"].removeprefix("public."): r["n"] for r in rows}


def more(remige, w, by):
    """Waits until every view had so many runs more."""
    before = done(remige, w)

    def enough():
        now = done(remige, w)
        return all(now.get(v, 0) >= before.get(v, 0) + by for v in VIEWS)
    until(f"{by} more runs of every view", enough)


def main():
    remige = sys.argv[1]
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 30)
    print(f"schedule_check: {kills} kills, seed {seed}", flush=True)
    rng = random.Random(seed)
    servers = []
    with tempfile.TemporaryDirectory() as tmp:
        w = os.path.join(tmp, "w")
        try:
            check(remige, w, kills, rng, servers)
        finally:
            for s in servers:
                if s.process.poll() is None:
                    s.kill()
    print("schedule_check: passed")


def check(remige, w, kills, rng, servers):
    first_tick = math.floor(time.time() / EVERY)
    sql(remige, w, "CREATE ENTITY e KEY (k BIGINT)")
    clauses = f"ENTITY e EVENT TIMESTAMP ts ONLINE REFRESH EVERY INTERVAL '{EVERY} seconds'"
    # every run replaces all of it: half a run would show
    rows = "SELECT value % 1000 AS k, to_timestamp_seconds(1767225600 + value / 100000) AS ts, value AS v FROM generate_series(0, {})"
    sql(remige, w, f"CREATE FEATURE VIEW slow {clauses} LOOKBACK INTERVAL '1 day' AS {rows.format(199_999)}")
    sql(remige, w, f"CREATE FEATURE VIEW quick {clauses} LOOKBACK INTERVAL '1 day' AS {rows.format(999)}")
    sql(remige, w, f"CREATE FEATURE VIEW reader {clauses} LOOKBACK INTERVAL '1 day' AS SELECT k, ts, v AS w FROM quick")
    servers += [Server(remige, w), Server(remige, w)]
    more(remige, w, 2)
    struck = 0
    for _ in range(kills):
        time.sleep(rng.uniform(0, EVERY))
        victim = rng.choice([s for s in servers if s.process.poll() is None])
        victim.kill()
        struck += 1
        # while it was at work, perhaps: whole all the same, and the other server takes over
        assert sql(remige, w, "SELECT count(*) AS n, count(DISTINCT v) AS d FROM slow") == [{"n": 200_000, "d": 200_000}]
        more(remige, w, 2)
        servers.append(Server(remige, w))
    living = [s for s in servers if s.process.poll() is None]
    for view in VIEWS:
        for name in ["freshness", "refresh_age", "materialize_age", "overdue"]:
            line = f'remige_feature_view_{name}_seconds{{view="public.{view}@v1"}} '
            for s in living:
                until(f"{line} in the metrics", lambda: [t for t in s.scrape().splitlines() if t.startswith(line) and "NaN" not in t])
    succeeded = 'remige_runs_total{kind="refresh",view="public.quick@v1",status="succeeded"} '
    until("runs in the metrics", lambda: any(succeeded in s.scrape() for s in living))
    for view in VIEWS:
        sql(remige, w, f"ALTER FEATURE VIEW {view} SUSPEND")
    for s in living:
        s.stop()
    ticks = math.floor(time.time() / EVERY) - first_tick + 1
    refreshed, loaded = done(remige, w), done(remige, w, "materialize")
    # two servers that did not know of one another would run up to twice as often
    assert all(refreshed[v] <= ticks for v in VIEWS), (refreshed, ticks)
    assert all(loaded[v] <= refreshed[v] for v in VIEWS), (refreshed, loaded)
    left = sql(remige, w, "SELECT object, error FROM system.runs WHERE status = 'running'")
    assert not left, left
    wrong = sql(remige, w, "SELECT DISTINCT error FROM system.runs WHERE status = 'failed' AND error <> 'the process ended before the run did'")
    assert not wrong, wrong
    for view, column, want in [("slow", "v", 199_000), ("quick", "v", 0), ("reader", "w", 0)]:
        got = sql(remige, w, f"SELECT {column} AS x FROM ONLINE_LOOKUP('{view}', 0)")
        assert got == [{"x": want}], (view, got)
    broken = sql(remige, w, "SELECT count(*) AS n FROM system.runs WHERE status = 'failed'")[0]["n"]
    print(f"ok   {ticks} ticks, refreshed {refreshed}, loaded {loaded}; {struck} servers killed, {broken} runs broken off by it")


if __name__ == "__main__":
    main()
