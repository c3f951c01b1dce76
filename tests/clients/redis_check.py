#!/usr/bin/env python3
"""The demo's features on a real Redis: online equals offline for every key, an emptied Redis is an error and
never NULLs, MATERIALIZE repairs it, and a Redis that is gone or silent is an error and never a hang.

    redis_check.py REMIGE WAREHOUSE

WAREHOUSE is where examples/flights.sql has run; a copy of it is used, with a redis-server of our own.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

# Far beyond any deadline of ours: who hangs is stopped here.
HANG = 120
NEVER = "was never materialized"
AWAY = "cannot reach the online store"
FEATURES = ("temperature, wind_speed, visibility, precipitation, pressure, departures_3h, avg_delay_3h, late_share_3h, "
            "minutes_since_departure, seats, engines, plane_age, haul")
LOOKUP = "SELECT tailnum, seats, plane_facts__status FROM ONLINE_LOOKUP('plane_facts', 'N68452', 'no such plane', status => true)"
FOUND = [{"tailnum": "N68452", "seats": 191, "plane_facts__status": "PRESENT"},
         {"tailnum": "no such plane", "plane_facts__status": "NOT_FOUND"}]


def both_sides(at):
    """Every airport, airline and plane of the year, asked on both sides: what only one side has."""
    keys = "origin, carrier, tailnum, distance"
    return f"""
        WITH asked AS (SELECT {keys}, TIMESTAMP '{at}' AS asked_at FROM every_key),
        online AS (
          SELECT {keys}, {FEATURES}
          FROM ONLINE_LOOKUP('departure_delay_v1', (SELECT {keys} FROM every_key), at => TIMESTAMP '{at}')
        ), offline AS (
          SELECT k.origin, k.carrier, k.tailnum, k.distance, {", ".join("f." + c for c in FEATURES.split(", "))}
          FROM asked k ASOF JOIN departure_delay_v1 f AT k.asked_at
        )
        SELECT (SELECT count(*) FROM online) AS keys, (SELECT count(*) FROM every_key) AS asked,
               (SELECT count(*) FROM online WHERE departures_3h > 0) AS recent, (SELECT count(seats) FROM online) AS planes,
               (SELECT count(*) FROM (SELECT * FROM online EXCEPT ALL SELECT * FROM offline)) AS only_online,
               (SELECT count(*) FROM (SELECT * FROM offline EXCEPT ALL SELECT * FROM online)) AS only_offline"""


class Redis:
    def __init__(self, folder, *options):
        self.folder = folder
        self.options = options
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--dir", self.folder, *self.options], stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                if self.ask("PING") == "PONG":
                    return
            except OSError:
                pass
            assert self.process.poll() is None, "redis-server ended"
            time.sleep(0.05)
        raise AssertionError("redis-server does not answer")

    def ask(self, command):
        """One command, a one-line answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as s:
            s.sendall(command.encode() + b"\r\n")
            return s.makefile().readline().strip()[1:]

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


class Caller:
    """`remige sql`, on the warehouse or as a client of a server."""

    def __init__(self, *command):
        self.command = list(command)

    def run(self, text):
        return subprocess.run([*self.command, "--format", "json", "-c", text], capture_output=True, text=True, timeout=HANG)

    def rows(self, text):
        out = self.run(text)
        assert out.returncode == 0, f"{text}\n{out.stderr}"
        return [{k: v for k, v in json.loads(line).items() if v is not None} for line in out.stdout.splitlines()]

    def fails(self, text, *words):
        out = self.run(text)
        assert out.returncode == 1 and not out.stdout.strip(), f"no error: {text}\n{out.stdout}"
        missing = [w for w in words if w not in out.stderr]
        assert not missing, f"{text}\n{out.stderr}\nlacks {missing}"

    def materialize(self):
        runs = self.rows("MATERIALIZE ALL FEATURE VIEWS")
        assert len(runs) == 3 and all(r["status"] == "succeeded" for r in runs), runs
        return {r["object"].split(".")[-1]: r["rows_written"] for r in runs}


def ok(what):
    print(f"ok   {what}", flush=True)


def agree(caller, at, what):
    got = caller.rows(both_sides(at))[0]
    assert got["keys"] == got["asked"] > 1000 and got["only_online"] == got["only_offline"] == 0, got
    assert got["recent"] > 0 and got["planes"] > 1000, got  # else the comparison says nothing
    ok(f"{what}: {got['keys']:,} keys, the same on both sides, {got['recent']:,} with recent departures, {got['planes']:,} with a plane")


def scripts(redis, embedded, caller):
    caller.fails(LOOKUP, "plane_facts", NEVER, "MATERIALIZE FEATURE VIEW")
    ok("what the embedded store holds does not count for an empty Redis")
    written = caller.materialize()
    assert all(written.values()), written
    assert caller.rows(LOOKUP) == FOUND, caller.rows(LOOKUP)
    agree(caller, "2013-12-31 00:00:00", "after MATERIALIZE")
    assert not any(caller.materialize().values())
    ok("a second MATERIALIZE writes nothing")

    caller.rows("REFRESH FEATURE VIEW station_delays AT '2013-12-31 06:00'")
    again = caller.materialize()
    assert again["plane_facts"] == 0 and again["station_delays"] > 0, again
    agree(caller, "2013-12-31 06:00:00", "six hours later")

    assert redis.ask("FLUSHALL") == "OK"
    for text in (LOOKUP, both_sides("2013-12-31 06:00:00")):
        caller.fails(text, NEVER, "MATERIALIZE FEATURE VIEW")
    ok("after FLUSHALL every lookup is an error that says what to do")
    assert all(caller.materialize().values())
    agree(caller, "2013-12-31 06:00:00", "MATERIALIZE repaired it")
    assert embedded.rows(LOOKUP) == FOUND
    ok("the embedded store was not touched")


def server(redis, remige, warehouse, folder):
    with open(os.path.join(folder, "serve.err"), "w") as err:
        p = subprocess.Popen([remige, "serve", "-w", warehouse, "--online", redis.url, "--listen", "127.0.0.1:0"],
                             stdout=subprocess.PIPE, stderr=err, text=True)
    try:
        line = p.stdout.readline().strip()
        assert line.startswith("remige ready "), open(os.path.join(folder, "serve.err")).read()
        caller = Caller(remige, "sql", "--connect", line.removeprefix("remige ready "))
        assert caller.rows(LOOKUP) == FOUND
        assert redis.ask("FLUSHALL") == "OK"
        caller.fails(LOOKUP, NEVER, "MATERIALIZE FEATURE VIEW")
        caller.materialize()
        assert caller.rows(LOOKUP) == FOUND
        ok("a running server sees at once that Redis was emptied, and that it was filled again")

        redis.process.send_signal(signal.SIGSTOP)
        try:
            caller.fails(LOOKUP, AWAY, redis.url)
        finally:
            redis.process.send_signal(signal.SIGCONT)
        assert caller.rows(LOOKUP) == FOUND
        ok("a Redis that does not answer is an error; when it answers again, so does the server")

        redis.stop()
        caller.fails(LOOKUP, AWAY, redis.url)
        caller.fails("MATERIALIZE FEATURE VIEW plane_facts FULL", AWAY, redis.url, "plane_facts")
        assert caller.rows("SELECT count(*) AS n FROM plane_facts") == [{"n": 3322}]
        ok("a Redis that is gone is an error; what needs no Redis works")
        redis.start()
        caller.fails(LOOKUP, NEVER, "MATERIALIZE FEATURE VIEW")
        caller.materialize()
        agree(caller, "2013-12-31 06:00:00", "Redis came back empty, MATERIALIZE filled it")
    finally:
        p.send_signal(signal.SIGTERM)
        code = p.wait(timeout=HANG)
    assert code == 0, f"the server ended with {code}"


def remember(caller):
    """A record goes when its newest event has left the longest window. With one over all events it stays."""
    view = caller.rows("SHOW CREATE FEATURE VIEW station_delays")[0]["statement"]
    service = caller.rows("SHOW CREATE FEATURE SERVICE departure_delay_v1")[0]["statement"]
    for old, new in (("CREATE FEATURE VIEW", "CREATE OR REPLACE FEATURE VIEW"), ("AS SELECT", "AS SELECT count(*) OVER ALL AS ever,")):
        assert old in view, view
        view = view.replace(old, new, 1)
    caller.rows(view)
    caller.rows("REFRESH FEATURE VIEW station_delays AT '2013-12-31 00:00'")
    caller.rows("MATERIALIZE FEATURE VIEW station_delays")
    caller.rows(service.replace("CREATE FEATURE SERVICE", "CREATE OR REPLACE FEATURE SERVICE", 1))
    caller.rows("DROP FEATURE VIEW station_delays@v1")


def main():
    remige, demo = os.path.abspath(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as tmp:
        warehouse = os.path.join(tmp, "warehouse")
        shutil.copytree(demo, warehouse)
        redis = Redis(tmp)
        redis.start()
        try:
            sql = [remige, "sql", "-w", warehouse]
            # Redis lets rows go for their age: flights of 2013 are asked for as of 2013
            Caller(*sql).rows("ALTER FEATURE VIEW origin_weather SET TTL INTERVAL '36500 days'")
            remember(Caller(*sql))
            scripts(redis, Caller(*sql), Caller(*sql, "--online", redis.url))
            server(redis, remige, warehouse, tmp)
            redis.stop()
            Caller(*sql, "--online", redis.url).fails(LOOKUP, AWAY, redis.url)
            ok("and so it is for a script")
        finally:
            redis.stop()
    print("redis_check: passed")


if __name__ == "__main__":
    main()
