"""Many readers while generations are switched under them."""
import random
import threading

import adbc_driver_manager as adbc
import pyarrow as pa

from .play import ENTITY, case

KEYS = 2000
ASKED = 100
READERS = 16
STEP = 1_000_000


class Reader(threading.Thread):
    """Looks keys up until told to stop: a list of them, or bound rows. `check` judges an answer, `excuse` an error."""

    def __init__(self, server, rng, over, view, columns, keys, bound, check, excuse):
        super().__init__(daemon=True)
        self.server, self.rng, self.over, self.view, self.columns, self.keys = server, rng, over, view, columns, keys
        self.bound, self.check, self.excuse = bound, check, excuse
        self.answers, self.errors, self.wrong = 0, [], None

    def run(self):
        try:
            with self.server.connect() as connection, connection.cursor() as cursor:
                while not self.over.is_set():
                    asked = self.rng.sample(range(self.keys), ASKED)
                    try:
                        table = self.ask(cursor, asked)
                    except adbc.Error as e:
                        if self.excuse is None or not self.excuse(str(e)):
                            raise
                        self.errors.append(str(e))
                        self.over.wait(0.01)
                        continue
                    assert table["k"].to_pylist() == asked
                    self.check(table)
                    self.answers += 1
        except Exception as e:  # told by the thread that waits
            self.wrong = e
            self.over.set()

    def ask(self, cursor, keys):
        lookup = f"SELECT k, {self.columns} FROM ONLINE_LOOKUP('{self.view}', {{}})"
        if self.bound:
            cursor.execute(lookup.format("$1"), pa.record_batch({"k": pa.array(keys, pa.int64())}))
        else:
            cursor.execute(lookup.format(", ".join(map(str, keys))))
        return cursor.fetch_arrow_table()


def start(play, servers, count, view, columns, keys, check, excuse=None):
    """Readers of all servers in turn, every other one with bound rows."""
    over = threading.Event()
    readers = [Reader(servers[i % len(servers)], random.Random(play.rng.random()), over, view, columns, keys, i // len(servers) % 2 == 1,
                      check, excuse) for i in range(count)]
    for r in readers:
        r.start()
    return over, readers


def finish(over, readers):
    """Answers how many answers there were, and the errors."""
    over.set()
    for r in readers:
        r.join()
    for r in readers:
        if r.wrong is not None:
            raise r.wrong
    return sum(r.answers for r in readers), [e for r in readers for e in r.errors]


def switched(play, w, *options):
    """MATERIALIZE FULL again and again under 16 readers: every answer of 100 keys is of one load."""
    w.script(ENTITY, "CREATE TABLE loads AS SELECT 1 AS n",
             "CREATE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts ONLINE AS SELECT value AS k, to_timestamp_seconds(1767225600) AS ts,"
             f" (SELECT max(n) FROM loads) * {STEP} + value AS v FROM generate_series(0, {KEYS - 1})",
             "REFRESH FEATURE VIEW f FULL", "MATERIALIZE FEATURE VIEW f FULL")
    server = play.server(w, *options)
    seen = set()

    def check(table):
        keys, values = table["k"].to_pylist(), table["v"].to_pylist()
        assert None not in values, "a key that is there was not found"
        loads = {divmod(v, STEP) for v in values}
        assert {k for _, k in loads} == set(keys), "a value of another key"
        numbers = {n for n, _ in loads}
        assert len(numbers) == 1, f"one answer mixes the loads {sorted(numbers)}"
        seen.update(numbers)
    over, readers = start(play, [server], READERS, "f", "v", KEYS, check)
    switches = 4 * play.rounds
    try:
        for n in range(2, switches + 2):
            w.script(f"INSERT INTO loads VALUES ({n})", "REFRESH FEATURE VIEW f FULL")
            # at once, and after the grace time: old generations are dropped while they are read
            grace = play.rng.choice(["0s", "1s", "60s"])
            w.through(w.online, "--set", f"online_settings.generation_grace={grace}").rows("MATERIALIZE FEATURE VIEW f FULL")
            if over.is_set():
                break
    finally:
        answers, _ = finish(over, readers)
    assert len(seen) > switches // 2, seen
    server.finish()
    return f"{answers} answers of {ASKED} keys, of {len(seen)} generations, none of two"


@case
def switch_under_readers_redis(play):
    # several commands per lookup: each might meet another generation
    return switched(play, play.warehouse(play.redis().url), "--set", "online_settings.read_chunk=30")


@case
def switch_under_readers_embedded(play):
    return switched(play, play.warehouse())
