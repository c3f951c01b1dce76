#!/usr/bin/env python3
"""kill -9 during REFRESH, MATERIALIZE and OPTIMIZE, then the same statement again: nothing lost, nothing
doubled, nothing mixed. What killed writers leave, VACUUM removes.

    kill_check.py REMIGE [ROUNDS [SEED]]
"""
import glob
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

ROWS = 200_000
KEYS = 20_000


def sql(remige, warehouse, text):
    out = subprocess.run([remige, "sql", "-w", warehouse, "--format", "json", "-c", text], capture_output=True, text=True)
    assert out.returncode == 0, f"{text}\n{out.stderr}"
    return [json.loads(line) for line in out.stdout.splitlines()]


def killed(remige, warehouse, text, after):
    """Starts a statement and kills it; answers whether it was still running."""
    p = subprocess.Popen([remige, "sql", "-w", warehouse, "-c", text], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    running = p.poll() is None
    if running:
        os.kill(p.pid, signal.SIGKILL)
    p.wait()
    return running


def main():
    remige = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 6
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 30)
    print(f"kill_check: {rounds} rounds, seed {seed}", flush=True)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as tmp:
        w = os.path.join(tmp, "w")
        sql(remige, w, "CREATE ENTITY e KEY (k BIGINT)")
        sql(remige, w, f"CREATE TABLE src AS SELECT value % {KEYS} AS k, to_timestamp_seconds(1767225600 + value) AS ts,"
                       f" value AS v, 'text ' || CAST(value AS VARCHAR) AS s FROM generate_series(0, {ROWS - 1})")
        sql(remige, w, "CREATE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts ONLINE AS SELECT k, ts, v, s FROM src")
        start = time.monotonic()
        sql(remige, w, "REFRESH FEATURE VIEW f FULL")
        refresh = time.monotonic() - start
        start = time.monotonic()
        sql(remige, w, "MATERIALIZE FEATURE VIEW f FULL")
        load = time.monotonic() - start
        print(f"     REFRESH {refresh:.1f} s, MATERIALIZE {load:.1f} s", flush=True)
        want = sql(remige, w, "SELECT count(*) AS n, count(DISTINCT v) AS d, sum(v) AS total FROM f")
        assert want[0]["n"] == ROWS and want[0]["d"] == ROWS, want
        hits = 0
        for _ in range(rounds):
            for text, duration in (("REFRESH FEATURE VIEW f FULL", refresh), ("MATERIALIZE FEATURE VIEW f FULL", load)):
                hits += killed(remige, w, text, rng.uniform(0.02, duration))
                # whole before the repair: the old state or the new one, never half
                assert sql(remige, w, "SELECT count(*) AS n, count(DISTINCT v) AS d, sum(v) AS total FROM f") == want
                online(remige, w)
                sql(remige, w, text)
                assert sql(remige, w, "SELECT count(*) AS n, count(DISTINCT v) AS d, sum(v) AS total FROM f") == want
                online(remige, w)
        runs = sql(remige, w, "SELECT status, count(*) AS n FROM system.runs GROUP BY status ORDER BY status")
        assert not [r for r in runs if r["status"] == "running"], runs
        print(f"ok   {hits} of {2 * rounds} statements were killed while they ran; runs: {runs}")
        assert hits > 0
        optimized(remige, w, rng, 2 * rounds)
        print("kill_check: passed")


def online(remige, w):
    got = sql(remige, w, "SELECT count(*) AS n, count(v) AS d, sum(v) AS total, count(s) AS s FROM"
                         f" ONLINE_LOOKUP('f', (SELECT value AS k FROM generate_series(0, {KEYS - 1})))")
    first = ROWS - KEYS
    total = sum(range(first, ROWS))
    assert got == [{"n": KEYS, "d": KEYS, "total": total, "s": KEYS}], (got, total)


def optimized(remige, w, rng, rounds):
    """Killed OPTIMIZEs, then three of them and two INSERTs at once, each in a process of its own."""
    sql(remige, w, "CREATE FEATURE VIEW p (v BIGINT) ENTITY e EVENT TIMESTAMP ts")
    rows = 0

    def insert():
        nonlocal rows
        first, rows = rows, rows + 50_000
        return (f"INSERT INTO p SELECT value % {KEYS}, to_timestamp_seconds(1767225600 + value), value"
                f" FROM generate_series({first}, {rows - 1})")

    def whole():
        got = sql(remige, w, "SELECT count(*) AS n, count(DISTINCT v) AS d, sum(v) AS total FROM p")
        assert got == [{"n": rows, "d": rows, "total": rows * (rows - 1) // 2}], (got, rows)

    sql(remige, w, insert())
    sql(remige, w, insert())
    start = time.monotonic()
    sql(remige, w, "OPTIMIZE FEATURE VIEW p")
    duration = time.monotonic() - start
    hits = 0
    for _ in range(rounds):
        sql(remige, w, insert())
        hits += killed(remige, w, "OPTIMIZE FEATURE VIEW p", rng.uniform(0.1, 1.2 * duration))
        whole()
        # the lease of a dead process holds nobody up
        assert sql(remige, w, "OPTIMIZE FEATURE VIEW p")[0]["files_after"] == 1
        whole()
    texts = ["OPTIMIZE FEATURE VIEW p"] * 3 + [insert(), insert()]
    rng.shuffle(texts)
    at_once = [subprocess.Popen([remige, "sql", "-w", w, "-c", t], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for t in texts]
    for p, text in zip(at_once, texts):
        said = p.communicate()[1]
        assert p.returncode == 0 or "is being maintained already" in said, f"{text}\n{said}"
    whole()
    long_ago = time.time() - 3 * 86400
    folder = glob.glob(os.path.join(w, "features/public/p/*/"))[0]
    for f in glob.glob(folder + "*.parquet*"):
        os.utime(f, (long_ago, long_ago))
    left = sql(remige, w, "VACUUM FEATURE VIEW p RETAIN INTERVAL '1 day'")[0]
    whole()
    assert sql(remige, w, "SELECT count(*) AS n FROM p VERSION AS OF 1") == [{"n": 50_000}], "within the retention"
    assert sql(remige, w, "VACUUM FEATURE VIEW p RETAIN INTERVAL '1 day'")[0]["files_removed"] == 0
    print(f"ok   {hits} of {rounds} OPTIMIZEs were killed while they ran; VACUUM removed {left['files_removed']} file(s)")
    assert hits > 0


if __name__ == "__main__":
    main()
