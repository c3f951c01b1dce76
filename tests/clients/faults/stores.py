"""Faults of the store itself: emptied, slow, silent, broken off, a primary lost, bytes corrupted."""
import json
import shutil
import signal
import struct
import threading
import time

from redis_check import AWAY, NEVER

from . import readers
from .loads import FULL, KEYS, MORE, NO_GRACE, change, declare
from .play import agree, all_end, case, newest, online, pushed, wait_for
from .processes import Cluster, Sentinel
from .resp import Refused
from schedule_check import until

# A lookup must end within its deadline; a machine that is busy with other things may be so many times slower.
GENEROUS = 20
SILENT = "did not answer within"
EMPTIED = (NEVER, "MATERIALIZE FEATURE VIEW")


def lookup(view, *keys):
    return f"SELECT k, load, s FROM ONLINE_LOOKUP('{view}', {', '.join(map(str, keys))})"


@case
def store_emptied(play):
    """Redis restarts empty, also in the middle of a load: an error that names MATERIALIZE, which repairs it."""
    redis = play.redis()
    proxy = play.proxy(redis)
    w = play.warehouse(redis.url)
    declare(w)
    server = play.server(w)
    client = play.client(server)
    agree(client, "f", KEYS)
    agree(client, "p", KEYS)
    broken = 0

    def restart():
        redis.kill()
        redis.start()

    def tell(caller):
        for view in ("f", "p"):
            for text in (lookup(view, 1, 2, 3), lookup(view, -1), lookup(view, *range(600))):
                caller.fails(text, view, *EMPTIED)
    for i in range(play.rounds):
        restart()
        assert not redis.keys()
        tell(client)
        tell(w)
        # a push that meets an empty store brings all rows, not its own alone
        client.rows(f"INSERT INTO p {pushed(100 + i, 'k < 10', KEYS)}")
        agree(client, "p", KEYS)
        client.fails(lookup("f", 1), *EMPTIED)
        client.rows(MORE)
        agree(client, "f", KEYS)
        agree(w, "f", KEYS)

        change(w, 100 + i, play.rng)
        proxy.strike_after(play.rng.randrange(1, 300_000), lambda: restart() or True)
        out = w.through(proxy.url).run(FULL)
        if out.returncode:
            assert "public.f" in out.stderr and "internal" not in out.stderr, out.stderr
            broken += 1
            tell(client)
        else:
            agree(client, "f", KEYS)
        w.script(MORE, "MATERIALIZE FEATURE VIEW p")
        agree(client, "f", KEYS)
        agree(client, "p", KEYS)
    server.finish()
    return f"emptied {2 * play.rounds} times, {broken} loads broken off by it"


class Served:
    """What a view may answer: the values before a change and after it."""

    def __init__(self, values):
        self.allowed = {k: {v} for k, v in values.items()}

    def also(self, values):
        for k, v in values.items():
            self.allowed[k].add(v)

    def check(self, table):
        for k, load, s in zip(table["k"].to_pylist(), table["load"].to_pylist(), table["s"].to_pylist()):
            assert load in self.allowed[k], (k, load, self.allowed[k])
            assert s == (None if load is None else f"text {load} of {k}"), (k, load, s)


def lost_primary(play, store):
    store.start()
    w = play.warehouse(store.url)
    declare(w)
    deadline = 1.0
    server = play.server(w, "--set", "online_settings.lookup_deadline=1s")
    client = play.client(server)
    answers = failures = 0
    slowest = 0.0
    for i in range(play.rounds):
        agree(client, "f", KEYS)
        agree(client, "p", KEYS)
        served = Served(online(client, "p", KEYS))
        over, asking = readers.start(play, [server], 4, "p", "load, s", KEYS, served.check, lambda e: "Unavailable" in e)
        try:
            until("answers", lambda: over.is_set() or all(r.answers > 1 for r in asking))
            victim = store.lose_a_primary(play.rng)
            # answered or refused while it is gone, and in time
            start = time.monotonic()
            client.run(lookup("p", *range(200)))
            slowest = max(slowest, time.monotonic() - start)
            store.until_whole()
            before = [r.answers for r in asking]
            try:
                until("answers after the failover", lambda: over.is_set() or all(r.answers > b + 1 for r, b in zip(asking, before)))
            except SystemExit as never:
                said = [(r.answers - b, len(r.errors), r.errors[-1:]) for r, b in zip(asking, before)]
                raise AssertionError(f"{never}: answers since, refusals, the last of them: {said}") from None
        finally:
            n, errors = readers.finish(over, asking)
        answers, failures = answers + n, failures + len(errors)
        assert slowest < GENEROUS * deadline, slowest
        # the new primary has no scripts
        change(w, 100 + i, play.rng)
        client.rows(f"INSERT INTO p {pushed(100 + i, 'k % 3 = 0', KEYS)}")
        client.rows(MORE)
        agree(client, "f", KEYS)
        agree(client, "p", KEYS)
        w.rows(FULL)
        agree(client, "f", KEYS)
        victim.start()
        store.until_whole()
    server.finish()
    return f"{answers} right answers and {failures} refusals while {play.rounds} primaries were lost"


@case
def primary_lost_cluster(play):
    """kill -9 of a primary of a Redis Cluster under readers: right answers or typed errors, then all is right."""
    return lost_primary(play, play.own(Cluster(play.home("cluster"))))


@case
def primary_lost_sentinel(play):
    """kill -9 of the primary that the sentinels name."""
    return lost_primary(play, play.own(Sentinel(play.home("sentinel"))))


def lost_writes(play, store, replica_of):
    """A failover to a replica that has not got the last writes: MATERIALIZE brings them back."""
    store.start()
    w = play.warehouse(store.url)
    declare(w)
    lost = 0
    for i in range(play.rounds):
        before = online(w, "p", KEYS)
        victim = play.rng.choice(store.primaries())
        replica = replica_of(victim)
        replica.process.send_signal(signal.SIGSTOP)
        victim.call("CLIENT", "KILL", "TYPE", "replica")
        w.rows(f"INSERT INTO p {pushed(100 + i, 'k % 2 = 0', KEYS)}")
        stored = newest(w, "p", KEYS)
        victim.kill()
        replica.process.send_signal(signal.SIGCONT)
        store.until_whole()
        after = until("an answer", lambda: answered(w))
        assert all(v in (before[k], stored[k]) for k, v in after.items())
        lost += sum(v != stored[k] for k, v in after.items())
        w.rows("MATERIALIZE FEATURE VIEW p")
        agree(w, "p", KEYS)
        victim.start()
        store.until_whole()
    assert lost > 0, "no write was lost: the case says nothing"
    return f"{lost} rows were lost with their primaries and brought back"


def answered(w):
    try:
        return online(w, "p", KEYS)
    except AssertionError:
        return None


@case
def writes_lost_cluster(play):
    """One primary of three is lost with its last writes; what the others hold goes on saying that all is applied."""
    cluster = play.own(Cluster(play.home("cluster")))

    def replica_of(primary):
        name = primary.call("CLUSTER", "MYID").decode()
        line = next(line for line in cluster.lines(primary) if " slave " in line and line.split()[3] == name)
        port = int(line.split()[1].split("@")[0].split(":")[1])
        return next(n for n in cluster.nodes if n.port == port)
    return lost_writes(play, cluster, replica_of)


@case
def writes_lost_sentinel(play):
    """The primary is lost with its last writes, and with it the note that they were applied."""
    sentinel = play.own(Sentinel(play.home("sentinel")))
    return lost_writes(play, sentinel, lambda primary: next(n for n in sentinel.data if n is not primary))


@case
def store_silent(play):
    """A slow, a silent and a stopped Redis, connections that break: lookups end in time, the server works, and recovers."""
    redis = play.redis()
    proxy = play.proxy(redis)
    direct = play.warehouse(redis.url)
    declare(direct)
    deadline = 0.5
    w = direct.through(proxy.url)
    server = play.server(w, "--set", f"online_settings.lookup_deadline={int(deadline * 1000)}ms")
    client = play.client(server)
    values = online(direct, "p", KEYS)
    refused, untyped = 0, []

    def recovered():
        def right():
            out = client.run(lookup("p", 1, 2))
            assert out.returncode == 0 or AWAY in out.stderr or SILENT in out.stderr, out.stderr
            return out.returncode == 0
        until("the server recovers", right)
        agree(client, "p", KEYS)

    def refuses(count, *texts):
        nonlocal refused
        slowest = []

        def ask(text):
            with server.connect() as connection, connection.cursor() as cursor:
                start = time.monotonic()
                try:
                    cursor.execute(text)
                    got = cursor.fetch_arrow_table()
                    slowest.append(f"an answer from a store that is silent: {got}")
                except Exception as e:
                    took = time.monotonic() - start
                    typed = "Unavailable" in str(e) and (SILENT in str(e) or AWAY in str(e))
                    if not typed or took > GENEROUS * deadline:
                        slowest.append(f"{took:.1f} s: {e}")
        threads = [threading.Thread(target=ask, args=(texts[i % len(texts)],)) for i in range(count)]
        for t in threads:
            t.start()
        # meanwhile, and with as many lookups waiting
        assert client.rows("SELECT count(*) AS n FROM p")[0]["n"] > 0
        assert len(newest(client, "p", KEYS)) == KEYS
        for t in threads:
            t.join()
        assert not slowest, slowest[0]
        refused += count

    agree(client, "p", KEYS)
    texts = (lookup("p", 1), lookup("p", *range(100)), lookup("f", *range(700)))
    for _ in range(play.rounds):
        proxy.delay = 4 * deadline
        refuses(6, *texts)
        proxy.delay = 0
        recovered()

        proxy.flows.clear()
        refuses(40, *texts)
        load = w.start(MORE)
        code, said = wait_for(load)
        assert code == 1 and AWAY in said and "public.f" in said, said
        proxy.flows.set()
        recovered()

        redis.process.send_signal(signal.SIGSTOP)
        try:
            refuses(12, *texts)
        finally:
            redis.process.send_signal(signal.SIGCONT)
        recovered()

        # an answer that breaks off anywhere: all of it, or an error
        for _ in range(10):
            with proxy.lock:
                proxy.answers_left = play.rng.randrange(1, 20_000)
            out = client.run(lookup("p", *range(200)))
            if out.returncode:
                if AWAY not in out.stderr and SILENT not in out.stderr:
                    untyped.append(out.stderr)
                refused += 1
            else:
                got = [json.loads(line) for line in out.stdout.splitlines()]
                assert {r["k"]: r["load"] for r in got} == {k: values[k] for k in range(200)}, got
        proxy.answers_left = None
        recovered()
    assert not untyped, f"{len(untyped)} errors are of no kind that can be tried again: {untyped[0]}"
    server.finish()
    return f"{refused} lookups were refused in time, the rest was right"


def stored_key(prefix, k):
    return prefix + b"\x01" + struct.pack(">Q", (k + (1 << 63)) % (1 << 64))


@case
def rows_corrupted(play):
    """Bytes under a key that are no row of ours: an error with view and key; other keys are served."""
    redis = play.redis()
    w = play.warehouse(redis.url)
    declare(w)
    server = play.server(w)
    client = play.client(server)
    values = online(w, "p", KEYS)
    damaged = play.rng.choice([k for k, v in values.items() if v is not None])
    # p was made before f
    pushes = min(k for k in redis.keys() if k.endswith(stored_key(b":", damaged)))
    prefix = pushes.removesuffix(stored_key(b"", damaged))
    assert {stored_key(prefix, k) for k, v in values.items() if v is not None} <= redis.keys()
    key = stored_key(prefix, damaged)
    row = redis.call("GET", key)
    others = [k for k in range(KEYS) if k != damaged]

    def flipped(at, to):
        return row[:at] + bytes([to]) + row[at + 1:]
    damages = {"garbage": play.rng.randbytes(7), "nothing": b"", "cut in its values": row[:play.rng.randrange(39, len(row))],
               "cut in its head": row[:play.rng.randrange(1, 38)], "another kind of row": flipped(32, 99), "unknown flags": flipped(33, 0x80),
               "another schema": row[:34] + b"\xff\xff\xff\x01" + row[38:], "long garbage": play.rng.randbytes(300),
               "no text": row[:-3] + b"\xff\xfe\xff", "a list": ["x"]}

    def damage_with(key, damage):
        redis.call("DEL", key)
        if isinstance(damage, list):
            redis.call("RPUSH", key, *damage)
        else:
            redis.call("SET", key, damage)
    found = []
    for what, damage in damages.items():
        damage_with(key, damage)
        for caller in (w, client):
            if what == "a list":
                # Redis says nil of a key of another type: lookups take it for absent, VERIFY tells
                assert caller.rows(f"SELECT load FROM ONLINE_LOOKUP('p', {damaged})") in ([{}], [{"load": None}])
                told = caller.rows("VERIFY FEATURE VIEW p")[0]
                assert told["mismatches"] == told["missing_online"] == 1 and f"({damaged})" in told["examples"], told
            for text in () if what == "a list" else (lookup("p", damaged), lookup("p", 0, 1, damaged, 2)):
                out = caller.run(text)
                if out.returncode != 1 or out.stdout.strip():
                    found.append(f"{what}: {out.stdout}")
                told = ("public.p", f"key ({damaged})", "help:", "is of kind 99" if "kind" in what else "online row")
                if not all(words in out.stderr for words in told):
                    found.append(f"{what}: {out.stderr}")
            got = caller.rows(f"SELECT k, load, s FROM ONLINE_LOOKUP('p', (SELECT k FROM (SELECT value AS k FROM"
                              f" generate_series(0, {KEYS - 1})) WHERE k <> {damaged}))")
            assert {r["k"]: r.get("load") for r in got} == {k: values[k] for k in others}
    assert not found, "\n".join(found)
    repairs = {"a load": lambda _: "MATERIALIZE FEATURE VIEW p FULL", "a load in place": lambda _: "MATERIALIZE FEATURE VIEW p IN PLACE",
               "a push of the key": lambda i: f"INSERT INTO p {pushed(50 + i, f'k = {damaged}', KEYS)}"}
    for what, repair in repairs.items():
        for i, damage in enumerate(damages[name] for name in ("garbage", "another kind of row", "cut in its values", "a list")):
            current = redis.call("GET", prefix.rsplit(b":", 2)[0] + b":cur")
            generation = b"%08x" % int(current.split(b'"generation":')[1].split(b",")[0])
            damage_with(stored_key(prefix.rsplit(b":", 2)[0] + b":" + generation + b":", damaged), damage)
            if damage != damages["a list"]:
                w.fails(lookup("p", damaged), "public.p", f"key ({damaged})")
            out = w.run(repair(i))
            if out.returncode:
                found.append(f"{what} over {damage!r}: {out.stderr}")
                w.rows("MATERIALIZE FEATURE VIEW p FULL")
            agree(w, "p", KEYS)
    assert not found, "\n".join(found)
    server.finish()
    return f"{len(damages)} damages of one row were told with its key, {len(others)} other keys were served"


@case
def store_restored(play):
    """Redis comes back with the state of a while ago: old values at most, never a mixture of generations, and a load repairs it."""
    redis = play.redis("--dbfilename", "old.rdb")
    w = play.warehouse(redis.url, *NO_GRACE)
    declare(w)
    server = play.server(w)
    client = play.client(server)
    for i in range(play.rounds):
        before = {view: online(client, view, KEYS) for view in ("f", "p")}
        redis.call("SAVE")
        change(w, 100 + i, play.rng)
        w.rows(play.rng.choice([FULL, MORE]))
        w.script(f"INSERT INTO p {pushed(100 + i, f'k % 3 = {i % 3}', KEYS)}", f"DELETE FROM p WHERE k % 7 = {i}")
        if play.rng.random() < 0.5:
            w.rows("MATERIALIZE FEATURE VIEW p FULL")
        agree(client, "p", KEYS)
        redis.kill()
        redis.start()
        for view, old in before.items():
            assert online(client, view, KEYS) == old
        # the next push brings what was lost, not its own rows alone
        client.rows(f"INSERT INTO p {pushed(200 + i, 'k < 5', KEYS)}")
        client.rows(MORE)
        for view in ("f", "p"):
            agree(client, view, KEYS)
    server.finish()
    return f"restored {play.rounds} times"


@case
def store_refuses(play):
    """Redis answers with errors: each is told as what it is, and passes when it passes."""
    redis = play.redis("--lua-time-limit", "50")
    w = play.warehouse(redis.url)
    declare(w)
    server = play.server(w)
    client = play.client(server)
    insert = f"INSERT INTO p {pushed(2, 'k < 5', KEYS)}"
    writes = (insert, "MATERIALIZE FEATURE VIEW p FULL")
    reads = (lookup("p", 1, 2),)
    wrong = []

    def answers(texts, kind, *words):
        with server.connect() as connection, connection.cursor() as cursor:
            for text in texts:
                try:
                    cursor.execute(text)
                    cursor.fetchall()
                    wrong.append(f"{words} but no error: {text}")
                except Exception as e:
                    lacks = [x for x in (kind, redis.url, "public.p" if text in writes else "", *words) if x not in str(e)]
                    if lacks or str(e).count("the online store") != 1:
                        wrong.append(f"lacks {lacks} or names the store twice: {str(e)[:600]}")

    def endless():
        try:
            redis.call("EVAL", "while true do end", 0)
        except Exception:
            pass
    busy = threading.Thread(target=endless)
    busy.start()
    until("Redis is busy", lambda: says(redis, "GET", "x").startswith("BUSY"))
    try:
        answers(reads + writes, "Unavailable", "BUSY")
    finally:
        redis.call("SCRIPT", "KILL")
        busy.join()

    redis.call("REPLICAOF", "127.0.0.1", 1)
    redis.call("CONFIG", "SET", "replica-serve-stale-data", "yes")
    assert online(client, "p", KEYS)
    answers(writes, "Unavailable", "read only")
    redis.call("CONFIG", "SET", "replica-serve-stale-data", "no")
    answers(reads, "Unavailable", "MASTER is down")
    redis.call("REPLICAOF", "NO", "ONE")

    redis.call("CONFIG", "SET", "save", "1 1")
    shutil.rmtree(redis.folder)
    says(redis, "BGSAVE")
    until("Redis takes no writes", lambda: says(redis, "SET", "x", "y").startswith("MISCONF"))
    answers(writes, "Unavailable", "MISCONF")
    redis.call("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")

    redis.call("ACL", "SETUSER", "default", "-evalsha", "-eval", "-set")
    answers(writes, "PermissionDenied", "refuses the user default the command ")
    redis.call("ACL", "SETUSER", "default", "-mget", "-get")
    answers(reads, "PermissionDenied", "refuses the user default the command mget", "ACL SETUSER default +mget")
    redis.call("ACL", "SETUSER", "default", "+@all")

    w.rows("MATERIALIZE FEATURE VIEW p")
    agree(client, "p", KEYS)
    assert not wrong, "\n".join(wrong)
    server.finish()
    return "busy, read-only, without its primary, unable to save, refusing: each was told"


def says(redis, *words):
    try:
        return str(redis.call(*words))
    except Refused as e:
        return str(e)
