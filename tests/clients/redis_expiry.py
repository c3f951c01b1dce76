#!/usr/bin/env python3
"""Rows that a real Redis lets go for their age: when, what lookups and VERIFY say then, what a longer TTL brings
back, and that the mark of a deleted key keeps a time of its own.

    redis_expiry.py REMIGE
"""
import os
import socket
import sys
import tempfile
import time

from redis_check import Caller, Redis, ok

SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000
DEFINE = """
CREATE ENTITY u KEY (user_id BIGINT);
CREATE TABLE src AS SELECT * FROM (VALUES
  (1, now() - INTERVAL '1 hour', 10), (2, now() - INTERVAL '25 hours', 20), (3, now() - INTERVAL '40 days', 30),
  (4, now() - INTERVAL '1 hour', 40)) t(user_id, ts, v);
CREATE FEATURE VIEW aging ENTITY u EVENT TIMESTAMP ts TTL INTERVAL '1 day' ONLINE AS SELECT user_id, ts, v FROM src;
CREATE FEATURE VIEW lasting ENTITY u EVENT TIMESTAMP ts ONLINE AS SELECT user_id, ts, v FROM src;
CREATE FEATURE VIEW pushed (v BIGINT) ENTITY u EVENT TIMESTAMP ts TTL INTERVAL '1 day' ONLINE;
REFRESH FEATURE VIEW aging; REFRESH FEATURE VIEW lasting; MATERIALIZE ALL FEATURE VIEWS;
"""


# As their online keys name them, in the order of their creation.
VIEWS = {"aging": 1, "lasting": 2, "pushed": 3, "brief": 4}


def script(redis, code):
    """The one line that a script answers."""
    words = ["EVAL", code, "0"]
    wire = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
    with socket.create_connection(("127.0.0.1", redis.port), timeout=10) as s:
        s.sendall(wire.encode())
        return s.makefile().readline().strip()


def lives(redis, caller, view):
    """Key -> milliseconds until Redis lets its row go, of the current generation; -1: never."""
    generation = caller.rows(f"SELECT generation FROM system.online WHERE view = '{view}'")[0]["generation"]
    answer = script(redis, f"""
      local found = {{}}
      for _, k in ipairs(redis.call('KEYS', 'remige:*:{VIEWS[view]:08x}:{generation:08x}:*')) do
        found[#found + 1] = string.byte(k, #k) .. '=' .. redis.call('PTTL', k)
      end
      return {{ok = table.concat(found, ' ')}}""")
    assert answer.startswith("+"), answer
    return {int(k): int(v) for k, v in (p.split("=") for p in answer[1:].split())}


def statuses(caller, view, keys, *options):
    options = "".join(f", {o}" for o in options)
    rows = caller.rows(f"SELECT {view}__status AS s FROM ONLINE_LOOKUP('{view}', {keys}, status => true{options})")
    return [r["s"] for r in rows]


def agrees(caller, view):
    row = caller.rows(f"VERIFY FEATURE VIEW {view}")[0]
    assert row["mismatches"] == row["missing_online"] == row["extra_online"] == 0 and row["keys_checked"] > 0, row


def loaded(redis, caller):
    left = lives(redis, caller, "aging")
    for key, age in ((1, HOUR), (2, 25 * HOUR), (4, HOUR)):
        low, high = 1.1 * DAY - age - 120 * SECOND, 1.15 * DAY - age
        assert low <= left[key] <= high, (key, left)
    assert set(left) == {1, 2, 4}, left
    assert set(lives(redis, caller, "lasting").values()) == {-1}
    assert statuses(caller, "aging", "1, 2, 3, 4") == ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND", "PRESENT"]
    agrees(caller, "aging")
    ok("rows go by their events and the TTL, old ones are seen as too old first, older ones are not written")
    at = caller.rows("SELECT arrow_cast(now() - INTERVAL '39 days', 'Utf8') AS t")[0]["t"]
    assert statuses(caller, "aging", "3", f"at => TIMESTAMP '{at}'") == ["NOT_FOUND"]
    assert statuses(caller, "lasting", "3", f"at => TIMESTAMP '{at}'") == ["PRESENT"]
    ok("asked for at an earlier instant, what was let go is NOT_FOUND")


def kept_longer(redis, caller):
    before = lives(redis, caller, "aging")
    caller.rows("ALTER FEATURE VIEW aging SET TTL INTERVAL '50 days'")
    assert lives(redis, caller, "aging") and statuses(caller, "aging", "2, 3") == ["OUTSIDE_MAX_AGE", "NOT_FOUND"]
    caller.rows("MATERIALIZE FEATURE VIEW aging")
    left = lives(redis, caller, "aging")
    assert set(left) == {1, 2, 3, 4} and all(left[k] > before.get(k, 0) for k in left), left
    assert statuses(caller, "aging", "1, 2, 3") == ["PRESENT"] * 3
    agrees(caller, "aging")
    ok("a longer TTL brings rows back with the next MATERIALIZE")
    caller.rows("ALTER FEATURE VIEW aging SET TTL INTERVAL '1 day'; MATERIALIZE FEATURE VIEW aging")
    assert statuses(caller, "aging", "1, 2") == ["PRESENT", "OUTSIDE_MAX_AGE"]
    caller.rows("MATERIALIZE FEATURE VIEW aging FULL")
    assert set(lives(redis, caller, "aging")) == {1, 2, 4}
    ok("a shorter one lets them go with the next full load")
    caller.rows("ALTER FEATURE VIEW aging SET TTL INTERVAL '0 days'; MATERIALIZE FEATURE VIEW aging")
    assert set(lives(redis, caller, "aging").values()) == {-1}
    caller.rows("ALTER FEATURE VIEW aging SET TTL INTERVAL '1 day'; MATERIALIZE FEATURE VIEW aging FULL")
    caller.rows("ALTER FEATURE VIEW aging SET TTL INTERVAL '50 days'; MATERIALIZE FEATURE VIEW aging IN PLACE")
    left = lives(redis, caller, "aging")
    assert set(left) == {1, 2, 3, 4} and 4 * DAY < left[3] < 20 * DAY and all(left[k] > 50 * DAY for k in (1, 2, 4)), left
    caller.rows("ALTER FEATURE VIEW aging SET TTL INTERVAL '1 day'; MATERIALIZE FEATURE VIEW aging FULL")
    caller.rows("MATERIALIZE FEATURE VIEW aging IN PLACE")
    left = lives(redis, caller, "aging")
    assert set(left) == {1, 2, 4} and all(0 < v < 1.15 * DAY for v in left.values()), left
    agrees(caller, "aging")
    ok("IN PLACE sets them, too")


def pushed_and_deleted(redis, caller):
    push = "INSERT INTO pushed (user_id, ts, v) VALUES"
    caller.rows(f"{push} (1, now() - INTERVAL '2 hours', 1), (2, now() - INTERVAL '1 hour', 2), (5, now() - INTERVAL '3 days', 5)")
    first = lives(redis, caller, "pushed")
    assert set(first) == {1, 2} and all(1 * DAY < v < 1.15 * DAY for v in first.values()), first
    caller.rows(f"{push} (1, now(), 11)")
    renewed = lives(redis, caller, "pushed")
    assert renewed[1] > first[1] + HOUR and renewed[2] <= first[2], (first, renewed)
    ok("a new row renews the expiry of its key")
    caller.rows("DELETE FROM pushed WHERE user_id = 2")
    left = lives(redis, caller, "pushed")
    assert 6.9 * DAY < left[2] <= 7 * DAY, left
    assert statuses(caller, "pushed", "1, 2, 5") == ["PRESENT", "NOT_FOUND", "NOT_FOUND"]
    agrees(caller, "pushed")
    ok("the mark of a deleted key keeps its own time")
    caller.rows(f"{push} (6, now() - INTERVAL '4 days', 6), (6, now(), 66)")
    caller.rows("DELETE FROM pushed WHERE v = 66")
    assert statuses(caller, "pushed", "6") == ["NOT_FOUND"]
    assert lives(redis, caller, "pushed")[6] > 6 * DAY
    agrees(caller, "pushed")
    ok("where a deleted row leaves one that is past its expiry, nothing older shows")


def gone(redis, caller):
    caller.rows("CREATE FEATURE VIEW brief (v BIGINT) ENTITY u EVENT TIMESTAMP ts TTL INTERVAL '3 seconds' ONLINE")
    caller.rows("INSERT INTO brief (user_id, ts, v) VALUES (1, now(), 1)")
    seen, until = [], time.monotonic() + 60
    while time.monotonic() < until and "NOT_FOUND" not in seen:
        seen += [s for s in statuses(caller, "brief", "1") if s not in seen]
        time.sleep(0.02)
    assert seen[-1] == "NOT_FOUND" and seen in (["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"], ["PRESENT", "NOT_FOUND"],
                                                ["OUTSIDE_MAX_AGE", "NOT_FOUND"], ["NOT_FOUND"]), seen
    assert lives(redis, caller, "brief") == {}
    agrees(caller, "brief")
    ok(f"Redis lets a row go: {', then '.join(seen)}; VERIFY knows it")
    caller.rows("ALTER FEATURE VIEW brief SET TTL INTERVAL '1 day'; MATERIALIZE FEATURE VIEW brief")
    assert statuses(caller, "brief", "1") == ["PRESENT"]
    ok("and a longer TTL brings it back")


def main():
    remige = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as tmp:
        redis = Redis(tmp)
        redis.start()
        try:
            caller = Caller(remige, "sql", "-w", os.path.join(tmp, "warehouse"), "--online", redis.url)
            caller.rows(DEFINE)
            loaded(redis, caller)
            kept_longer(redis, caller)
            pushed_and_deleted(redis, caller)
            gone(redis, caller)
        finally:
            redis.stop()
    print("redis_expiry: passed")


if __name__ == "__main__":
    main()
