"""What a fault case is given: a folder, a source of chance, and helpers that end what it starts."""
import os
import random
import subprocess
import sys
import traceback

from redis_check import Caller

from .processes import Redis, Server, wait_for
from .proxy import Proxy

CASES = {}
# Key and instant of every view here.
ENTITY = "CREATE ENTITY e KEY (k BIGINT)"
START = 1767225600


def case(f):
    """Registers a fault case under its function's name."""
    CASES[f.__name__] = f
    return f


class Play:
    def __init__(self, remige, folder, seed, rounds, name):
        self.remige = remige
        self.folder = folder
        self.rounds = rounds
        # The same chances whether the case runs alone or not.
        self.rng = random.Random(f"{seed} {name}")
        self.started = []

    def own(self, thing):
        self.started.append(thing)
        return thing

    def close(self):
        for thing in reversed(self.started):
            try:
                thing.stop()
            except Exception:
                # the others are stopped nevertheless
                traceback.print_exc(file=sys.stdout)

    def home(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(path, exist_ok=True)
        return path

    def redis(self, *options):
        redis = self.own(Redis(self.home(f"redis{len(self.started)}"), *options))
        redis.start()
        return redis

    def proxy(self, redis):
        return self.own(Proxy(redis.port))

    def warehouse(self, online="embedded", *options, name="w"):
        return Warehouse(self.remige, os.path.join(self.folder, name), online, options, self.own)

    def server(self, warehouse, *options):
        log = os.path.join(self.folder, f"serve{len(self.started)}.log")
        return self.own(Server(self.remige, warehouse.path, log, "--online", warehouse.online, *warehouse.options, *options))

    def client(self, server):
        return Caller(self.remige, "sql", "--connect", server.address)


class Statement:
    """A statement in a process of its own, which must not outlive its case."""

    def __init__(self, process):
        self.process = process

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Warehouse(Caller):
    """`remige sql` on a warehouse with an online store, each statement in a process of its own."""

    def __init__(self, remige, path, online, options, own):
        super().__init__(remige, "sql", "-w", path, "--online", online, *options)
        self.remige, self.path, self.online, self.options, self.own = remige, path, online, tuple(options), own

    def through(self, online, *options):
        """The same warehouse, its store by another way or with other settings."""
        return Warehouse(self.remige, self.path, online, (*self.options, *options), self.own)

    def start(self, text):
        process = subprocess.Popen([*self.command, "-c", text], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.own(Statement(process))
        return process

    def script(self, *texts):
        for text in texts:
            self.rows(text)


def every(upto):
    return f"(SELECT value AS k FROM generate_series(0, {upto - 1}))"


def pushed(load, keys, upto, at=START):
    """Rows of a push view (load, s) for keys that a condition on k picks; `load` is in every value and in the instant."""
    return (f"SELECT k, to_timestamp_seconds({at + load}) AS ts, {load} AS load, 'text {load} of ' || CAST(k AS VARCHAR) AS s"
            f" FROM {every(upto)} WHERE {keys}")


PUSH = "CREATE FEATURE VIEW {} (load BIGINT, s VARCHAR) ENTITY e EVENT TIMESTAMP ts ONLINE"


def online(caller, view, upto):
    """What is served: key -> load. A text that is not of that load would be half a row."""
    return whole_rows(caller.rows(f"SELECT k, load, s FROM ONLINE_LOOKUP('{view}', {every(upto)})"), upto)


def newest(caller, view, upto):
    """What the table says: key -> load."""
    rows = caller.rows(f"SELECT k, load, s FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY ts DESC, load DESC) AS place FROM {view})"
                       " WHERE place = 1")
    found = {k: None for k in range(upto)}
    found.update(whole_rows(rows, len(rows)))
    return found


def whole_rows(rows, count):
    assert len(rows) == count, (len(rows), count)
    found = {}
    for r in rows:
        load = r.get("load")
        assert r.get("s") == (None if load is None else f"text {load} of {r['k']}"), r
        found[r["k"]] = load
    assert len(found) == count, (len(found), count)
    return found


def agree(caller, view, upto):
    """Every key, and some that never were, on three ways: online, by ASOF JOIN, by the table's newest row."""
    columns = ("load", "s")
    plain, joined, told = (", ".join(f"{q}{c}" for c in columns) for q in ("", "f.", "n."))
    got = caller.rows(f"""
        WITH asked AS (SELECT value AS k, now() AS asked_at FROM generate_series(-5, {upto + 4})),
        online AS (SELECT k, {plain} FROM ONLINE_LOOKUP('{view}', (SELECT k FROM asked))),
        joined AS (SELECT a.k, {joined} FROM asked a ASOF JOIN {view} f AT a.asked_at),
        newest AS (SELECT a.k, {told} FROM asked a LEFT JOIN (
            SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY ts DESC, load DESC) AS place
                           FROM {view} WHERE ts <= now()) WHERE place = 1
        ) n ON a.k = n.k)
        SELECT (SELECT count(*) FROM asked) AS asked, (SELECT count(*) FROM online) AS keys, (SELECT count(load) FROM online) AS found,
               (SELECT count(*) FROM (SELECT * FROM online EXCEPT ALL SELECT * FROM joined)) AS only_online,
               (SELECT count(*) FROM (SELECT * FROM joined EXCEPT ALL SELECT * FROM online)) AS only_joined,
               (SELECT count(*) FROM (SELECT * FROM online EXCEPT ALL SELECT * FROM newest)) AS wrong,
               (SELECT count(*) FROM (SELECT * FROM newest EXCEPT ALL SELECT * FROM online)) AS missing""")[0]
    assert got["keys"] == got["asked"] == upto + 10, (view, got)
    differences = {k: got[k] for k in ("only_online", "only_joined", "wrong", "missing") if got[k]}
    assert not differences, (view, got)
    assert got["found"] > 0, (view, "the comparison says nothing", got)
    return got["found"]


def all_end(processes, *lost):
    """Waits for statements at once; one may fail only with one of the words `lost`. Answers who failed."""
    failed = []
    for text, p in processes:
        code, said = wait_for(p)
        if code != 0:
            assert any(words in said for words in lost), f"{text}\n{said}"
            failed.append(text)
    return failed
