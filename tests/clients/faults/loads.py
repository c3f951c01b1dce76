"""Faults of whoever writes: killed, doubled, out of memory, robbed of its scripts."""
import glob
import os
import signal
import threading
import time

from redis_check import AWAY

from .play import ENTITY, PUSH, agree, all_end, case, newest, online, pushed, wait_for

KEYS = 2000
COMPUTED = "CREATE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts ONLINE AS SELECT k, ts, load, s FROM src"
# What one of two writers of the embedded store may be told: nothing was written.
TAKEN = "is writing the embedded online store"
FULL, MORE = "MATERIALIZE FEATURE VIEW f FULL", "MATERIALIZE FEATURE VIEW f"
# Old generations go at once, so that what is left over can be told.
NO_GRACE = ("--set", "online_settings.generation_grace=0s")


def declare(w):
    w.script(ENTITY, PUSH.format("p"), f"CREATE TABLE src AS {pushed(1, 'true', KEYS)}", COMPUTED, "REFRESH FEATURE VIEW f FULL", FULL,
             f"INSERT INTO p {pushed(1, 'k % 3 > 0', KEYS)}")


def change(w, load, rng):
    """Another state of the computed view: more rows, or all of them replaced by those of fewer keys."""
    keys = f"k % {rng.randrange(2, 5)} = {rng.randrange(2)}"
    if rng.random() < 0.5:
        w.script(f"INSERT INTO src {pushed(load, keys, KEYS)}", "REFRESH FEATURE VIEW f")
    else:
        w.script(f"CREATE OR REPLACE TABLE src AS {pushed(load, f'NOT ({keys})', KEYS)}", "REFRESH FEATURE VIEW f FULL")


class ByBytes:
    """Kills a loader once it has sent Redis so many bytes; the last command arrives in part."""

    def __init__(self, proxy, rng):
        self.proxy, self.rng = proxy, rng
        # Of a statement that was let go on to its end.
        self.lengths = {}

    def measure(self, kind, w, text):
        before = self.proxy.sent
        w.rows(text)
        self.lengths[kind] = self.proxy.sent - before

    def kill(self, kind, w, text):
        started = threading.Event()

        def strike():
            started.wait()
            os.kill(victim.pid, signal.SIGKILL)
            return True
        self.proxy.strike_after(self.rng.randrange(1, self.lengths[kind]), strike)
        victim = w.start(text)
        started.set()
        code, said = wait_for(victim)
        self.proxy.strike_at = None
        assert code in (0, -signal.SIGKILL), said
        return code != 0


class ByTime:
    def __init__(self, rng):
        self.rng = rng
        self.lengths = {}

    def measure(self, kind, w, text):
        start = time.monotonic()
        w.rows(text)
        self.lengths[kind] = time.monotonic() - start

    def kill(self, kind, w, text):
        victim = w.start(text)
        time.sleep(self.rng.uniform(0.02, self.lengths[kind]))
        victim.kill()
        code, said = wait_for(victim)
        assert code in (0, -signal.SIGKILL), said
        return code != 0


def killed(play, loader, reader, killer, leftovers):
    """Kills loads; `loader` and `reader` are one warehouse, the first on the way that the killer watches."""
    rng = play.rng
    declare(reader)
    # one that has the store open all the time, beside those that open it anew
    server = play.server(reader)
    client = play.client(server)
    load, hits, tries = 1, 0, 0
    insert = "INSERT INTO p {}"
    killer.measure("full", loader, FULL)
    change(reader, load := load + 1, rng)
    killer.measure("more", loader, MORE)
    killer.measure("insert", loader, insert.format(pushed(load := load + 1, "k % 2 = 0", KEYS)))
    for _ in range(play.rounds):
        for kind in ("full", "more", "insert"):
            load += 1
            view = "p" if kind == "insert" else "f"
            before = online(reader, view, KEYS)
            if kind == "insert":
                text = insert.format(pushed(load, f"k % {rng.randrange(2, 5)} = 0", KEYS))
            else:
                change(reader, load, rng)
                text = FULL if kind == "full" else MORE
            hits += killer.kill(kind, loader, text)
            tries += 1
            after, table = online(rng.choice([client, reader]), view, KEYS), newest(reader, view, KEYS)
            if kind == "full":
                # old or new, never some of both
                assert after in (before, table), kind
            else:
                # each key old or new; and nothing is served that is not stored
                wrong = {k: (before[k], v, table[k]) for k, v in after.items() if v not in (before[k], table[k])}
                assert not wrong, (kind, list(wrong.items())[:5])
            reader.rows(f"MATERIALIZE FEATURE VIEW {view}" + (" FULL" if kind == "full" else ""))
            agree(client, view, KEYS)
            agree(reader, view, KEYS)
    assert hits > 0, "nothing was killed"
    server.finish()
    for view in ("f", "p"):
        reader.through(reader.online, *NO_GRACE).rows(f"MATERIALIZE FEATURE VIEW {view} FULL")
        agree(reader, view, KEYS)
    leftovers()
    return f"{hits} of {tries} loads were killed while they ran"


@case
def loader_killed_redis(play):
    redis = play.redis()
    proxy = play.proxy(redis)
    reader = play.warehouse(redis.url)
    loader = reader.through(proxy.url)

    def leftovers():
        generations(redis)
    return killed(play, loader, reader, ByBytes(proxy, play.rng), leftovers)


@case
def loader_killed_embedded(play):
    w = play.warehouse()

    def leftovers():
        views = glob.glob(os.path.join(w.path, "_online", "*", "CURRENT"))
        assert len(views) == 2, views
        for current in views:
            files = glob.glob(os.path.join(os.path.dirname(current), "*.redb"))
            assert len(files) == 1, files
    return killed(play, w, w, ByTime(play.rng), leftovers)


def generations(redis):
    """Every row in Redis is of the generation that its view's pointer names, and there is no other trace of another."""
    current, rows = {}, {}
    for key in redis.keys():
        if key.endswith(b":views"):
            continue
        prefix, warehouse, view, rest = key.split(b":", 3)
        assert prefix == b"remige", key
        if rest == b"cur":
            pointer = redis.call("GET", key)
            current[warehouse, view] = b"%08x" % int(pointer.split(b'"generation":')[1].split(b",")[0])
        elif rest[8:9] == b":":
            rows.setdefault((warehouse, view), set()).add(rest[:8])
        elif rest.startswith(b"wm:"):
            rows.setdefault((warehouse, view), set()).add(rest[3:])
    assert current, "Redis is empty"
    left = {view: found for view, found in rows.items() if found != {current.get(view)}}
    assert not left, (left, current)


@case
def two_loaders_redis(play):
    return two_loaders(play, play.warehouse(play.redis().url))


@case
def two_loaders_embedded(play):
    return two_loaders(play, play.warehouse(), TAKEN)


def two_loaders(play, w, *lost):
    """Full and incremental loads and INSERTs, each in a process of its own, at once."""
    declare(w)
    server = play.server(w)
    client = play.client(server)
    load, failures = 1, 0
    for _ in range(play.rounds):
        change(w, load := load + 1, play.rng)
        table = newest(w, "p", KEYS)
        texts = [FULL, MORE, FULL, "MATERIALIZE FEATURE VIEW p FULL", "MATERIALIZE FEATURE VIEW p"]
        inserts = {}
        for _ in range(3):
            load += 1
            remainder = play.rng.randrange(4)
            inserts[f"INSERT INTO p {pushed(load, f'k % 4 = {remainder}', KEYS)}"] = (load, remainder)
        texts += inserts
        play.rng.shuffle(texts)
        failed = all_end([(t, w.start(t)) for t in texts], *lost)
        failures += len(failed)
        for text, (number, remainder) in inserts.items():
            if text not in failed:
                table.update((k, max(number, table[k] or 0)) for k in range(KEYS) if k % 4 == remainder)
        assert newest(w, "p", KEYS) == table, "an INSERT that failed was stored, or one that did not was not"
        for caller in (w, client):
            assert online(caller, "p", KEYS) == table, "an INSERT that returned is not online"
        if lost:
            w.rows(MORE)
        agree(client, "f", KEYS)
        agree(client, "p", KEYS)
    server.finish()
    return f"{failures} statements were told that another process writes" if lost else "all statements ended well"


@case
def out_of_memory(play):
    """Redis at maxmemory: the load fails, the old generation serves; with more memory the load works."""
    redis = play.redis("--maxmemory-policy", "noeviction")
    w = play.warehouse(redis.url, *NO_GRACE)
    declare(w)
    failed = 0
    for i in range(play.rounds):
        before = online(w, "f", KEYS)
        change(w, 100 + i, play.rng)
        full = redis.memory()
        redis.call("CONFIG", "SET", "maxmemory", full + play.rng.randrange(1, 200_000))
        out = w.run(FULL)
        assert out.returncode == 1, "the memory was enough"
        for words in ("public.f", redis.url, "out of memory", "maxmemory"):
            assert words in out.stderr, out.stderr
        failed += 1
        assert online(w, "f", KEYS) == before
        # the pushed rows are stored, and the error says so
        redis.call("CONFIG", "SET", "maxmemory", 1)
        pushes = online(w, "p", KEYS)
        w.fails(f"INSERT INTO p {pushed(100 + i, 'k < 10', KEYS)}", "not yet online", "out of memory", "MATERIALIZE FEATURE VIEW public.p")
        assert online(w, "p", KEYS) == pushes
        assert newest(w, "p", KEYS) == {**pushes, **{k: 100 + i for k in range(10)}}
        redis.call("CONFIG", "SET", "maxmemory", 0)
        w.script(FULL, "MATERIALIZE FEATURE VIEW p")
        agree(w, "f", KEYS)
        agree(w, "p", KEYS)
        generations(redis)
    return f"{failed} loads failed for want of memory, served was what had been"


@case
def scripts_flushed(play):
    """Redis forgets the scripts while loads use them, as after a failover."""
    redis = play.redis()
    proxy = play.proxy(redis)
    w = play.warehouse(redis.url)
    declare(w)
    server = play.server(w.through(proxy.url, "--set", "online_settings.write_chunk=50"))
    client = play.client(server)
    flushed = 0

    def flush():
        nonlocal flushed
        redis.call("SCRIPT", "FLUSH")
        flushed += 1
    for i in range(2 * play.rounds):
        change(w, 100 + i, play.rng)
        for text in (MORE, f"INSERT INTO p {pushed(100 + i, f'k % 3 = {i % 3}', KEYS)}"):
            proxy.strike_after(play.rng.randrange(1, 50_000), flush)
            client.rows(text)
        agree(client, "f", KEYS)
        agree(client, "p", KEYS)
    assert flushed > play.rounds, flushed
    server.finish()
    return f"{flushed} times the scripts were gone in the middle of a load"


@case
def insert_before_switch(play):
    """Another process inserts between the last catch-up of a full load and its switch: the rows are online nevertheless."""
    redis = play.redis()
    proxy = play.proxy(redis)
    w = play.warehouse(redis.url)
    loader = w.through(proxy.url)
    declare(w)
    for i in range(play.rounds):
        text = f"INSERT INTO p {pushed(100 + i, f'k % 3 = {i % 3}', KEYS)}"
        struck = []
        # the pointer is on its way
        proxy.strike_before(b'"published_at"', lambda: struck.append(w.run(text)))
        loader.rows("MATERIALIZE FEATURE VIEW p FULL")
        assert len(struck) == 1 and struck[0].returncode == 0, struck
        agree(w, "p", KEYS)
    return f"{play.rounds} INSERTs came in between"


@case
def loader_asleep(play):
    """A loader stops in the middle, others go on without it, it wakes up: nothing old comes back, and nothing is left."""
    redis = play.redis()
    proxy = play.proxy(redis)
    w = play.warehouse(redis.url, *NO_GRACE)
    loader = w.through(proxy.url)
    declare(w)
    load, late = 1, 0
    # a sleeper's lease is waited for: half a minute each time
    for _ in range(1):
        for view, statement in (("f", FULL), ("f", MORE), ("p", "MATERIALIZE FEATURE VIEW p FULL")):
            load += 1
            change(w, load, play.rng)
            started, asleep = threading.Event(), threading.Event()

            def strike():
                started.wait()
                os.kill(sleeper.pid, signal.SIGSTOP)
                asleep.set()
            proxy.strike_after(play.rng.randrange(1, 150_000), strike)
            sleeper = loader.start(statement)
            started.set()
            while not asleep.is_set() and sleeper.poll() is None:
                asleep.wait(0.02)
            try:
                change(w, load := load + 1, play.rng)
                for text in play.rng.sample([FULL, MORE, "MATERIALIZE FEATURE VIEW p FULL"], 2):
                    w.rows(text)
                w.rows(f"INSERT INTO p {pushed(load, f'k % 5 = {load % 5}', KEYS)}")
                w.script(MORE)
                agree(w, "f", KEYS)
                agree(w, "p", KEYS)
            finally:
                late += asleep.is_set()
                if sleeper.poll() is None:
                    os.kill(sleeper.pid, signal.SIGCONT)
            code, said = wait_for(sleeper)
            proxy.strike_at = None
            # it may find that it was away for too long
            assert code == 0 or "try again" in said or "MATERIALIZE again" in said or AWAY in said, said
            agree(w, "f", KEYS)
            agree(w, "p", KEYS)
    assert late > 0, "no loader fell asleep"
    w.script(FULL, "MATERIALIZE FEATURE VIEW p FULL")
    agree(w, "f", KEYS)
    agree(w, "p", KEYS)
    generations(redis)
    return f"{late} loaders woke up late"


WRITERS = 6


@case
def server_killed_redis(play):
    """kill -9 of a server that many clients push to: what was acknowledged is stored and online, the rest wholly or not."""
    return server_killed(play, play.warehouse(play.redis().url))


@case
def server_killed_embedded(play):
    return server_killed(play, play.warehouse())


def server_killed(play, w):
    declare(w)
    # a hundred keys of its own for each writer
    mine = {i: f"k / 100 = {i}" for i in range(WRITERS)}
    acknowledged, tried = dict.fromkeys(mine, 1), dict.fromkeys(mine, 1)
    w.rows(f"INSERT INTO p {pushed(1, f'k / 100 < {WRITERS}', KEYS)}")
    pushes = 0

    def push(client, i):
        while True:
            tried[i] += 1
            if client.run(f"INSERT INTO p {pushed(tried[i], mine[i], KEYS)}").returncode:
                return
            acknowledged[i] = tried[i]
    for _ in range(play.rounds):
        server = play.server(w)
        client = play.client(server)
        writers = [threading.Thread(target=push, args=(client, i)) for i in mine]
        before = dict(acknowledged)
        for t in writers:
            t.start()
        while sum(acknowledged.values()) - sum(before.values()) < 2 * WRITERS and server.process.poll() is None:
            time.sleep(0.02)
        time.sleep(play.rng.uniform(0, 1))
        server.stop()
        for t in writers:
            t.join()
        served, table = online(w, "p", KEYS), newest(w, "p", KEYS)
        for i in mine:
            pushes += acknowledged[i] - before[i]
            stored = {table[k] for k in range(100 * i, 100 * i + 100)}
            assert len(stored) == 1, f"part of an INSERT is stored: {stored}"
            assert acknowledged[i] <= stored.pop() <= tried[i], f"stored {stored}, acknowledged {acknowledged[i]}, tried {tried[i]}"
            for k in range(100 * i, 100 * i + 100):
                assert acknowledged[i] <= served[k] <= table[k], f"key {k}: acknowledged {acknowledged[i]}, online {served[k]}, stored {table[k]}"
        w.rows("MATERIALIZE FEATURE VIEW p")
        agree(w, "p", KEYS)
    assert w.rows("SELECT count(*) AS n, count(DISTINCT (k, load)) AS d FROM p WHERE load > 1") == w.rows(
        "SELECT count(*) AS n, count(*) AS d FROM p WHERE load > 1"), "rows are doubled"
    return f"{pushes} INSERTs were acknowledged before the server was killed"
