#!/usr/bin/env python3
"""Statements that would hold up, fill or end a server: it lives, answers lookups meanwhile, and is quiet after their cancel.

    attack_check.py REMIGE

The server has 1 GiB for statements. Every text goes by every road that plans it. LOOKUP_LIMIT (seconds, default 1) is what a
lookup may take during an attack; a debug build on a busy machine may need more.
"""
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pyarrow as pa
import pyarrow.flight as flight

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../examples"))
from lookup_ticket import _bytes, lookup_ticket  # noqa: E402

LOOKUP_LIMIT = float(os.environ.get("LOOKUP_LIMIT", "1"))
RESIDENT = 2 << 30
TICKS = os.sysconf("SC_CLK_TCK")
# Far beyond what anything here takes: who hangs is stopped here.
HANG = int(os.environ.get("HANG", "120"))

SETUP = """
CREATE ENTITY u KEY (id BIGINT);
CREATE FEATURE VIEW f (x BIGINT) ENTITY u EVENT TIMESTAMP ts AT TIME ZONE 'UTC' ONLINE;
INSERT INTO f VALUES (1, TIMESTAMP '2026-01-01', 10), (2, TIMESTAMP '2026-01-01', 20);
CREATE TABLE big AS SELECT value AS n, value % 3 AS g FROM generate_series(1, 1000000);
"""


def chain(first, more, n, last=""):
    return first + more * n + last


def doubling(n):
    steps = "".join(f", c{i + 1} AS (SELECT * FROM c{i} UNION ALL SELECT * FROM c{i})" for i in range(n))
    return f"WITH c0 AS (SELECT 1 AS a){steps} SELECT count(*) FROM c{n}"


DOUBLING = doubling(26)
LONG_CTES = "WITH c0 AS (SELECT 1 AS a)" + "".join(f", c{i + 1} AS (SELECT * FROM c{i})" for i in range(3000)) + " SELECT * FROM c3000"

# Texts that are refused, and say why.
DEEP = {
    "sum": chain("SELECT 1", "+1", 5037),
    "text": chain("SELECT 'a'", "||'a'", 5037),
    "casts": chain("SELECT 1", "::INT", 20_000),
    "brackets": chain("SELECT ", "(", 20_000) + "1" + ")" * 20_000,
    "functions": chain("SELECT ", "abs(", 20_000) + "1" + ")" * 20_000,
    "not": chain("SELECT ", "NOT ", 50_000, "true"),
    "minus": chain("SELECT ", "- ", 50_000, "1"),
    "intervals": chain("SELECT ", "INTERVAL ", 50_000, "'1 day'"),
    "case in case": chain("SELECT ", "CASE WHEN true THEN ", 10_000, "1"),
    "sum of cases": chain("SELECT 1", "+CASE WHEN true THEN 1 END", 10_000),
    "between": chain("SELECT 1", " BETWEEN 1 AND 1", 20_000),
    "subqueries": chain("SELECT * FROM ", "(SELECT * FROM ", 5_000, "big") + ")" * 5_000,
    "in subqueries": chain("SELECT 1 WHERE 1 IN ", "(SELECT 1 WHERE 1 IN ", 2_000, "(1)") + ")" * 2_000,
    "lists": chain("SELECT ", "[", 20_000, "1") + "]" * 20_000,
    "types": chain("SELECT CAST(NULL AS ", "ARRAY<", 20_000, "INT"),
    "union": chain("SELECT 1", " UNION SELECT 1", 5_000),
    "explain": chain("", "EXPLAIN ", 50_000, "SELECT 1"),
    "joins": chain("SELECT count(*) FROM big b0", " CROSS JOIN big", 2_000),
    "comma joins": chain("SELECT count(*) FROM big b0", ", big", 2_000),
    "queries over queries": LONG_CTES,
    "doubling": DOUBLING,
    "struct types": chain("CREATE ENTITY e KEY (id ", "STRUCT<a ", 20_000, "INT"),
    "view": chain("CREATE VIEW deep AS SELECT 1", "+1", 5037, " AS x"),
    "feature view": chain("CREATE FEATURE VIEW deep ENTITY u EVENT TIMESTAMP ts AS SELECT id, ts, 1", "+1", 5037, " AS y FROM f"),
    "view of brackets": chain("CREATE VIEW deep AS SELECT ", "(", 20_000, "1"),
    "filter of a delete": chain("DELETE FROM f WHERE x = 1", "+1", 5037),
    "end of a chain is missing": chain("SELECT 1 WHERE a = 1", " OR a = 1", 15_000, " )"),
}

# Long texts that work.
LONG = {
    "or": "SELECT count(*) FROM big WHERE " + " OR ".join(f"n = {i}" for i in range(5000)),
    "and": "SELECT count(*) FROM big WHERE " + " AND ".join(f"n <> {i}" for i in range(5000)),
    "or of two": "SELECT count(*) FROM big WHERE " + " OR ".join(f"(n = {i} AND g = {i % 3})" for i in range(2500)),
    "in": "SELECT count(*) FROM big WHERE n IN (" + ", ".join(str(i) for i in range(5000)) + ")",
    "case": "SELECT count(CASE " + " ".join(f"WHEN n = {i} THEN {i}" for i in range(300)) + " END) FROM big WHERE n < 10",
    "values": "SELECT count(*) FROM (VALUES " + ", ".join(f"({i}, 'x')" for i in range(10_000)) + ")",
    "union all": chain("SELECT count(*) FROM (SELECT 1 AS a", " UNION ALL SELECT 2", 1_000, ")"),
}

# What runs for ever, and is cancelled.
ENDLESS = {
    "nested loops": "SELECT count(*) FROM big a, big b WHERE a.n > b.n",
    "nested loops without a match": "SELECT count(*) FROM big a, big b WHERE a.n + b.n < 0",
    "pairs": "SELECT count(*) FROM generate_series(1, 20000000) a, generate_series(1, 1000000) b",
    "pairs of pairs": "SELECT sum(a.n) FROM big a, big b, big c",
    "pairs in groups": "SELECT a.g, count(*) FROM big a, big b GROUP BY a.g",
    "few keys": "SELECT count(*) FROM big a JOIN big b ON a.g = b.g",
    "few keys without a match": "SELECT count(*) FROM big a JOIN big b ON a.g = b.g AND a.n + b.n < 0",
    "exists": "SELECT count(*) FROM big a WHERE EXISTS (SELECT 1 FROM big b WHERE a.g = b.g AND a.n + b.n < 0)",
    "left join": "SELECT count(*) FROM big a LEFT JOIN big b ON a.n + b.n < 0",
    "recursion": "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "series": "SELECT sum(value) FROM generate_series(1, 9000000000000)",
    "sorted pairs": "SELECT * FROM (SELECT a.n FROM big a, big b ORDER BY a.n + b.n LIMIT 5)",
    "rows of lists": "SELECT count(*) FROM (SELECT unnest(range(1, 1000000)) FROM big)",
}

# What would take more memory than there is.
LARGE = {
    "lpad": "SELECT length(lpad('x', 2147483647, 'y'))",
    "rpad": "SELECT length(rpad('x', 2000000000, 'y'))",
    "repeat": "SELECT length(repeat('xyz', 500000000))",
    "repeat of rows": "SELECT max(length(repeat('x', CAST(n AS INT) + 1000000))) FROM big",
    "range": "SELECT count(*) FROM (SELECT unnest(range(1, 300000000)))",
    "series of instants": "SELECT count(*) FROM (SELECT unnest(generate_series(TIMESTAMP '2000-01-01', TIMESTAMP '2030-01-01', INTERVAL '1 second')))",
    "array_repeat": "SELECT array_length(array_repeat(1, 1000000000))",
    "array_resize": "SELECT array_length(array_resize([1], 1000000000, 2))",
    "replace": "SELECT length(replace(repeat('x', 1000000), 'x', repeat('y', 10000)))",
    "concat": "SELECT length(concat(s, s, s, s, s, s)) FROM (SELECT repeat('x', 100000000) AS s)",
    "wide rows of lists": "SELECT count(s) FROM (SELECT repeat('x', 1000000) AS s, unnest(range(1, 1000000)))",
}


# What is planned for a while, as long as the limit of tables allows.
PLANNED = doubling(13)


class Failed(Exception):
    pass


def command(name, sql):
    return _bytes(1, f"type.googleapis.com/{name}".encode()) + _bytes(2, _bytes(1, sql.encode()))


def query(sql):
    return flight.FlightDescriptor.for_command(command("arrow.flight.protocol.sql.CommandStatementQuery", sql))


class Server:
    def __init__(self, remige, folder):
        done = subprocess.run([remige, "sql", "-w", folder], input=SETUP, capture_output=True, text=True, timeout=HANG)
        if done.returncode:
            raise Failed(done.stderr)
        self.err = open(os.path.join(folder, "..", "serve.err"), "w+")
        self.process = subprocess.Popen(
            [remige, "serve", "-w", folder, "--listen", "127.0.0.1:0", "--memory-limit", "1GiB", "--set", "server.shutdown_grace=2s"],
            stdout=subprocess.PIPE, stderr=self.err, text=True)
        self.address = self.process.stdout.readline().removeprefix("remige ready ").strip()
        self.client = flight.connect(self.address)

    def alive(self):
        if self.process.poll() is not None:
            self.err.seek(0)
            raise Failed(f"the server ended with {self.process.returncode}: {self.err.read()[-2000:]}")

    def run(self, sql, timeout=HANG):
        ticket = flight.Ticket(command("remige.v1.DirectQuery", sql))
        return self.client.do_get(ticket, flight.FlightCallOptions(timeout=timeout)).read_all()

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def most_resident(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM"))


class Lookups:
    """Asks for features all the time, with a client of its own; `worst`: the longest answer."""

    def __init__(self, address):
        self.client = flight.connect(address)
        self.ticket = flight.Ticket(lookup_ticket("f", pa.record_batch({"id": pa.array([1, 2], pa.int64())})))
        self.worst, self.count, self.failed = 0.0, 0, None
        self.go, self.over = threading.Event(), False
        self.thread = threading.Thread(target=self.ask, daemon=True)
        self.thread.start()

    def ask(self):
        while not self.over:
            self.go.wait()
            begun = time.monotonic()
            try:
                rows = self.client.do_get(self.ticket, flight.FlightCallOptions(timeout=HANG)).read_all()
                if rows.num_rows != 2:
                    self.failed = f"a lookup answered {rows}"
            except Exception as e:  # noqa: BLE001: shown by `during`
                self.failed = f"a lookup failed: {e}"
            self.worst = max(self.worst, time.monotonic() - begun)
            self.count += 1
            time.sleep(0.01)

    def during(self, what, work):
        self.worst, before = 0.0, self.count
        self.go.set()
        try:
            result = work()
            while self.count < before + 2:
                time.sleep(0.01)
        finally:
            self.go.clear()
        if self.failed:
            raise Failed(f"{what}: {self.failed}")
        if self.worst > LOOKUP_LIMIT:
            raise Failed(f"{what}: a lookup took {self.worst:.2f} s")
        return result


def refused(what, sql, call, want):
    begun = time.monotonic()
    try:
        call()
    except want as e:
        text = str(e).split("gRPC client debug context")[0]
        for words in ["Internal", "overflow", "unforeseen", "DataFusion"]:
            if words in text:
                raise Failed(f"{what}: {text[:300]}") from e
        return time.monotonic() - begun
    except Exception as e:  # noqa: BLE001
        raise Failed(f"{what}: {type(e).__name__}: {str(e)[:300]}") from e
    raise Failed(f"{what} was not refused: {sql[:80]}")


def roads(server, sql):
    """Every way of having a text planned."""
    prepare = flight.Action("CreatePreparedStatement",
                            command("arrow.flight.protocol.sql.ActionCreatePreparedStatementRequest", sql))
    return {
        "GetFlightInfo": lambda: server.client.get_flight_info(query(sql)),
        "GetSchema": lambda: server.client.get_schema(query(sql)),
        "Prepare": lambda: list(server.client.do_action(prepare)),
        "ticket": lambda: server.run(sql),
    }


def deep(server, lookups, remige, folder):
    for what, sql in DEEP.items():
        for road, call in roads(server, sql).items():
            if os.environ.get("LOUD"):
                print(what, road, flush=True)
            lookups.during(what, lambda: refused(f"{what} by {road}", sql, call, (pa.ArrowInvalid,)))
        server.alive()
        if what != "end of a chain is missing" and len(sql) < 100_000:
            done = subprocess.run([remige, "sql", "-w", folder + "2"], input=sql, capture_output=True, text=True, timeout=HANG)
            if done.returncode != 1:
                raise Failed(f"{what} in `remige sql`: ended with {done.returncode}: {done.stderr[-300:]}")
    print(f"ok   {len(DEEP)} texts that nest too deeply are refused by every road")


def long(server, lookups):
    for what, sql in LONG.items():
        begun = time.monotonic()
        rows = lookups.during(what, lambda: server.run(sql))
        print(f"     {what}: {rows.column(0)[0].as_py()} in {time.monotonic() - begun:.1f} s")
        server.client.get_flight_info(query("EXPLAIN " + sql))
        server.alive()
    print(f"ok   {len(LONG)} long texts work")


def quiet(server, what):
    """The server does nothing from one second after the cancel on."""
    time.sleep(1)
    before = server.cpu()
    time.sleep(1)
    busy = server.cpu() - before
    if busy > 0.4:
        raise Failed(f"{what}: the server was busy for {busy:.2f} of the second second after the cancel")


def endless(server, lookups):
    late = (flight.FlightTimedOutError, flight.FlightCancelledError)
    for what, sql in ENDLESS.items():
        lookups.during(what, lambda: refused(what, sql, lambda: server.run(sql, 2.0), late))
        server.alive()
        quiet(server, what)
    def planned():
        for _ in range(3):
            client = flight.connect(server.address)
            try:
                client.do_get(flight.Ticket(command("remige.v1.DirectQuery", PLANNED)), flight.FlightCallOptions(timeout=0.5)).read_all()
            except late:
                pass
    lookups.during("planning", planned)
    server.alive()
    quiet(server, "planning")
    print(f"ok   {len(ENDLESS)} statements without end are quiet a second after their deadline")
    # two at once, whose streams are dropped
    for what in ["nested loops", "pairs"]:
        others = [flight.connect(server.address) for _ in range(2)]
        ticket = flight.Ticket(command("remige.v1.DirectQuery", ENDLESS[what].replace("count(*)", "a.*")))
        readers = [c.do_get(ticket) for c in others]

        def read():
            for r in readers:
                r.read_chunk()
            time.sleep(2)
            for r in readers:
                r.cancel()
        lookups.during(what, read)
        quiet(server, f"{what}, dropped")
    print("ok   dropped streams")


def large(server, lookups):
    for what, sql in LARGE.items():
        lookups.during(what, lambda: refused(what, sql, lambda: server.run(sql), (flight.FlightServerError, pa.ArrowException, MemoryError)))
        server.alive()
    most = server.most_resident()
    if most > RESIDENT:
        raise Failed(f"the server had {most >> 20} MiB resident")
    print(f"ok   {len(LARGE)} statements that want too much memory; at most {most >> 20} MiB were resident")


def timeouts(server):
    from adbc_driver_flightsql import dbapi
    with dbapi.connect(server.address, db_kwargs={"adbc.flight.sql.rpc.with_cookie_middleware": "true"}) as db, db.cursor() as cursor:
        cursor.execute("SET statement_timeout = '1s'")
        try:
            cursor.execute(ENDLESS["nested loops"])
            cursor.fetchall()
        except Exception as e:  # noqa: BLE001
            if "statement_timeout" not in str(e):
                raise Failed(f"statement_timeout: {e}") from e
        else:
            raise Failed("a statement ran longer than statement_timeout allows")
        cursor.execute("RESET statement_timeout")
        cursor.execute("SELECT 1")
        cursor.fetchall()
    quiet(server, "statement_timeout")
    print("ok   statement_timeout")


def terminated(server):
    others = [flight.connect(server.address) for _ in range(2)]
    ticket = flight.Ticket(command("remige.v1.DirectQuery", ENDLESS["nested loops without a match"]))

    def ignore(client):
        try:
            client.do_get(ticket).read_all()
        except Exception:  # noqa: BLE001: the server goes
            pass
    threads = [threading.Thread(target=ignore, args=(c,), daemon=True) for c in others]
    for t in threads:
        t.start()
    time.sleep(2)
    server.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    code = server.process.wait(HANG)
    took = time.monotonic() - begun
    if code != 0 or took > 10:
        raise Failed(f"SIGTERM: the server ended with {code} after {took:.1f} s; its grace is 2 s")
    print(f"ok   SIGTERM ends the server within its grace ({took:.1f} s)")


def interrupted(remige, folder):
    """Ctrl-C in a terminal's session."""
    for what in ["nested loops", "pairs", "nested loops without a match"]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen([remige, "sql", "-w", folder, "-c", ENDLESS[what]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, err = process.communicate(timeout=HANG)
        took = time.monotonic() - begun
        if process.returncode != 1 or "cancelled" not in err or took > 2:
            raise Failed(f"Ctrl-C on {what}: ended with {process.returncode} after {took:.1f} s: {err} {before}")
    print("ok   Ctrl-C")


def main():
    remige = os.path.realpath(sys.argv[1])
    watchdog = threading.Timer(1800, lambda: os._exit(3))
    watchdog.daemon = True
    watchdog.start()
    with tempfile.TemporaryDirectory() as tmp:
        folder = os.path.join(tmp, "w")
        server = Server(remige, folder)
        try:
            lookups = Lookups(server.address)
            parts = {
                "deep": lambda: deep(server, lookups, remige, folder),
                "long": lambda: long(server, lookups),
                "endless": lambda: endless(server, lookups),
                "large": lambda: large(server, lookups),
                "timeouts": lambda: timeouts(server),
                "terminated": lambda: terminated(server),
                "interrupted": lambda: interrupted(remige, folder),
            }
            for name in sys.argv[2:] or parts:
                parts[name]()
        finally:
            if server.process.poll() is None:
                server.process.kill()


if __name__ == "__main__":
    try:
        main()
    except Failed as e:
        print(f"FAILED {e}")
        sys.exit(1)
