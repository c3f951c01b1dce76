"""Faults between what the catalog says and what the store holds: old catalogs, shared stores, dropped and future rows."""
import os
import threading
import time

from redis_check import HANG
from schedule_check import until

from . import readers
from .loads import FULL, NO_GRACE, declare, generations
from .play import ENTITY, PUSH, agree, case, online, pushed

KEYS = 2000
# What a reader may be told whose catalog is old.
STALE = ("was never materialized", "this catalog does not know", "does not exist", "try again", "changed", "Unavailable", "Aborted", "NotFound")


@case
def old_catalog(play):
    """Another server redefines, loads and drops versions of a view under readers whose catalog is old."""
    w = play.warehouse(play.redis().url, *NO_GRACE)
    w.script(ENTITY, f"CREATE TABLE src AS {pushed(1, 'true', KEYS)}")
    serial = 0

    def define(columns=""):
        # the step in every value tells versions and loads apart
        nonlocal serial
        serial += 1
        return ("CREATE OR REPLACE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts ONLINE AS"
                f" SELECT k, ts, {serial} AS load, 'text {serial} of ' || CAST(k AS VARCHAR) AS s{columns} FROM src")
    w.script(define(), "REFRESH FEATURE VIEW f FULL", FULL)
    first = play.server(w)
    a = play.client(first)
    # one that looks each second, and one whose catalog would be good for an hour
    others = [play.server(w), play.server(w, "--set", "online_settings.catalog_max_age=1h")]
    allowed = {1}

    def check(table):
        got = set()
        for k, load, s in zip(table["k"].to_pylist(), table["load"].to_pylist(), table["s"].to_pylist()):
            assert load is not None, f"key {k} is there, and was not found"
            assert s == f"text {load} of {k}", (k, load, s)
            got.add(load)
        assert len(got) == 1 and got <= allowed, (got, allowed)
    over, asking = readers.start(play, others, 8, "f", "load, s", KEYS, check, lambda e: any(words in e for words in STALE))
    version = 1
    columns = ""
    try:
        for i in range(2 * play.rounds):
            compatible = i % 2 == 1
            if compatible:
                columns += f", k + {i} AS more{i}"
                text = ("CREATE OR REPLACE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts ONLINE AS"
                        f" SELECT k, ts, {serial} AS load, 'text {serial} of ' || CAST(k AS VARCHAR) AS s{columns} FROM src")
            else:
                text = define(columns)
            allowed.add(serial)
            version += 1
            for t in (text, f"REFRESH FEATURE VIEW f@v{version} FULL", f"MATERIALIZE FEATURE VIEW f@v{version}", f"DROP FEATURE VIEW f@v{version - 1}"):
                a.rows(t)
                time.sleep(play.rng.uniform(0, 0.3))
            want = {k: serial for k in range(KEYS)}
            for server in others:
                client = play.client(server)

                def there():
                    out = client.run("SELECT k, load, s FROM ONLINE_LOOKUP('f', 1)")
                    assert out.returncode == 0 or any(words in out.stderr for words in STALE), out.stderr
                    return over.is_set() or (out.returncode == 0 and f'"load":{serial}' in out.stdout)
                until(f"the new version at a server whose catalog is old ({server.log})", there)
                if over.is_set():
                    break
                assert online(client, "f", KEYS) == want
            if over.is_set():
                break
            allowed.intersection_update({serial})
    finally:
        answers, errors = readers.finish(over, asking)
    for s in [first, *others]:
        s.finish()
    return f"{answers} right answers and {len(errors)} refusals over {version} versions"


@case
def two_warehouses(play):
    """Two warehouses on one Redis, schemas a and xa, names with *: what one drops touches nothing of the other."""
    redis = play.redis()
    both = [play.warehouse(redis.url, name=name) for name in ("w1", "w2")]
    names = ['"f*"', '"*"', "f", '"f[a-z]?"', '"f:00000001"']
    for i, w in enumerate(both):
        w.script(ENTITY)
        for j, schema in enumerate(("a", "xa")):
            w.script(f"CREATE SCHEMA {schema}")
            for n, name in enumerate(names):
                view = f"{schema}.{name}"
                w.script(PUSH.format(view).replace("ENTITY e", "ENTITY public.e"),
                         f"INSERT INTO {view} {pushed(100 * i + 10 * j + n + 1, 'true', 20)}")
    owned = [[f"{s}.{n}" for s in ("a", "xa") for n in names] for _ in both]

    def held():
        return {i: {v: online(w, v, 20) for v in owned[i]} for i, w in enumerate(both)}
    before, contents = held(), redis.contents()
    assert len({tuple(sorted(v.items())) for of in before.values() for v in of.values()}) == 2 * 2 * len(names)
    gone = set()
    for i in play.rng.sample(range(len(owned[0])), 4):
        view = owned[0][i]
        both[0].rows(f"DROP FEATURE VIEW {view}")
        now = redis.contents()
        missing = contents.keys() - now.keys()
        # the first warehouse's list of views
        assert {k.rsplit(b":", 1)[-1] for k in now if now[k] != contents.get(k)} == {b"views"}, "DROP changed keys"
        # 20 rows and the notes of one view of the first warehouse
        views = {tuple(k.split(b":")[1:3]) for k in missing}
        assert len(views) == 1 and not views & gone, (view, views)
        assert not [k for k in now if tuple(k.split(b":")[1:3]) in views], (view, "keys are left")
        assert len([k for k in missing if k.split(b":", 3)[3][8:9] == b":"]) == 20, (view, missing)
        gone |= views
        contents = now
    owned[0] = [v for v in owned[0] if both[0].run(f"DESCRIBE {v}").returncode == 0]
    assert len(owned[0]) == 2 * len(names) - 4
    after = held()
    assert after[1] == before[1]
    assert all(after[0][v] == before[0][v] for v in owned[0])
    for view in owned[0]:
        both[0].rows(f"DROP FEATURE VIEW {view}")
    left = {k.split(b":")[1] for k in redis.keys() if k.count(b":") > 2}
    assert len(left) == 1, left
    owned[0] = []
    assert held()[1] == before[1]
    return "dropped were the keys of the dropped views, and no others"


@case
def keys_reclaimed(play):
    """DROP and switches of versions and generations free their own keys, and nothing else."""
    redis = play.redis()
    w = play.warehouse(redis.url, *NO_GRACE)
    declare(w)
    w.script(PUSH.format("beside"), f"INSERT INTO beside {pushed(1, 'true', 50)}")

    def of_views():
        found = {}
        for key in redis.keys():
            found.setdefault(key.split(b":")[2], set()).add(key)
        return {view: keys for view, keys in found.items() if len(view) == 8}
    def others(*views):
        return {k: v for k, v in redis.contents().items() if k.split(b":")[2] not in views and k.count(b":") > 2}
    base = of_views()
    assert len(base) == 3, base.keys()
    # generations: what is not current goes, at the latest with the next load
    for _ in range(play.rounds):
        w.rows(FULL)
        generations(redis)
        assert {v: len(k) for v, k in of_views().items()} == {v: len(k) for v, k in base.items()}
    # a new version gets keys of its own; the old one's go with it
    w.script("CREATE OR REPLACE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts ONLINE AS SELECT k, ts, load + 1000 AS load, s FROM src",
             "REFRESH FEATURE VIEW f@v2 FULL")
    assert of_views().keys() == base.keys()
    w.rows("MATERIALIZE FEATURE VIEW f@v2")
    (new,) = of_views().keys() - base.keys()
    old_view = play.client(play.server(w))
    assert old_view.rows("SELECT load FROM ONLINE_LOOKUP('f@v1', 1)") and old_view.rows("SELECT load FROM ONLINE_LOOKUP('f', 1)")[0]["load"] > 1000
    before, base = redis.contents(), of_views()
    w.rows("DROP FEATURE VIEW f@v1")
    now = redis.contents()
    assert not {k for k in now if k.count(b":") > 2 and now[k] != before.get(k)}
    (dropped,) = base.keys() - of_views().keys()
    assert before.keys() - now.keys() == base[dropped], "other keys than those of the version"
    # offline and online again
    keep = others(new)
    w.rows("DROP FEATURE VIEW f")
    assert new not in of_views() and others(new) == keep
    agree(w, "p", KEYS)
    # Redis away during DROP: the view is gone, its keys go as soon as a server or statement meets the store again
    (beside, p) = sorted(of_views(), key=lambda v: len(of_views()[v]))
    redis.process.send_signal(19)
    try:
        w.through(redis.url, "--set", "online_settings.timeout=500ms").rows("DROP FEATURE VIEW beside")
    finally:
        redis.process.send_signal(18)
    w.fails("SELECT * FROM ONLINE_LOOKUP('beside', 1)", "beside")
    w.rows(f"INSERT INTO p {pushed(500, 'k = 1', KEYS)}")
    sweeper = play.server(w, *SWEEP) if swept(w) else None
    until("the keys of a view that was dropped while Redis was away are gone", lambda: beside not in of_views())
    assert of_views().keys() == {p}
    if sweeper:
        sweeper.finish()
    return "freed were the keys of dropped versions and old generations"


SWEEP = ("--set", "online_settings.sweep_every=1s")


def swept(w):
    return w.run("SELECT name FROM system.settings WHERE name = 'online_settings.sweep_every'").stdout.strip() != ""


@case
def not_yet_due(play):
    """Rows whose instant has not come are not served, and are served once it has."""
    redis = play.redis()
    w = play.warehouse(redis.url)
    w.script(ENTITY, PUSH.format("p"), f"INSERT INTO p {pushed(1, 'true', KEYS)}")
    server = play.server(w, *(SWEEP if swept(w) else ()))
    client = play.client(server)
    for i in range(play.rounds):
        load = 2 + 2 * i
        before = online(client, "p", KEYS)
        due = time.time() + 4
        late = time.time() + 200
        for instant, number, keys in ((due, load, "k < 100"), (late, load + 1, "k >= 50 AND k < 200")):
            client.rows(f"INSERT INTO p SELECT k, to_timestamp_micros({int(instant * 1e6)}) AS ts, {number} AS load,"
                        f" 'text {number} of ' || CAST(k AS VARCHAR) AS s FROM (SELECT value AS k FROM generate_series(0, {KEYS - 1})) WHERE {keys}")
        want = {**before, **{k: load for k in range(100)}}

        def came():
            got = online(client, "p", KEYS)
            if time.time() < due:
                assert got == before, "served before its instant"
            assert all(v in (before[k], want[k]) for k, v in got.items()), "a row whose instant has not come"
            return got == want
        if not swept(w):
            time.sleep(max(0, due - time.time()))
            client.rows("MATERIALIZE FEATURE VIEW p")
        until("the rows that came due are served", came)
        agree(client, "p", KEYS)
        # what is pushed later is served beside rows that are still held back
        client.rows(f"INSERT INTO p {pushed(load, 'k = 1999', KEYS, at=int(due) - load)}")
        assert online(client, "p", KEYS) == {**want, 1999: load}
        agree(client, "p", KEYS)
    server.finish()
    return "future rows were held back until due"
