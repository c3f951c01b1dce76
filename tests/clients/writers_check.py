#!/usr/bin/env python3
"""Processes that write one feature view at the same time: INSERT, DELETE, OPTIMIZE and VACUUM of a push view, and
REFRESH beside OPTIMIZE of another. No row is lost, doubled or comes back; a statement may lose a race only by saying so.

    writers_check.py REMIGE [ROUNDS [SEED]]
"""
import json
import os
import random
import subprocess
import sys
import tempfile

PER_INSERT = 20
# What a statement that lost a race may end with: nothing was written.
LOST = ("is being maintained already", "try again", "conflict")


def sql(remige, warehouse, text):
    out = subprocess.run([remige, "sql", "-w", warehouse, "--format", "json", "-c", text], capture_output=True, text=True)
    assert out.returncode == 0, f"{text}\n{out.stderr}"
    return [json.loads(line) for line in out.stdout.splitlines()]


def start(remige, warehouse, texts):
    return subprocess.Popen([remige, "sql", "-w", warehouse, "-c", ";\n".join(texts)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def lost_a_race(error):
    return any(words in error.lower() for words in LOST)


def main():
    remige = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 30)
    print(f"writers_check: {rounds} rounds, seed {seed}", flush=True)
    rng = random.Random(seed)
    lost = 0
    with tempfile.TemporaryDirectory() as tmp:
        w = os.path.join(tmp, "w")
        sql(remige, w, "CREATE ENTITY e KEY (k BIGINT)")
        sql(remige, w, "CREATE FEATURE VIEW pushed (v BIGINT) ENTITY e EVENT TIMESTAMP ts")
        sql(remige, w, "CREATE TABLE src AS SELECT value % 100 AS k, to_timestamp_seconds(1767225600 + value) AS ts, value AS v"
                       " FROM generate_series(0, 4999)")
        sql(remige, w, "CREATE FEATURE VIEW computed ENTITY e EVENT TIMESTAMP ts AS SELECT k, ts, v FROM src")
        sql(remige, w, "REFRESH FEATURE VIEW computed FULL")
        expected, next_value = set(), 0
        for _ in range(rounds):
            gone = set(rng.sample(sorted(expected), len(expected) // 4))
            inserts = []
            for _ in range(2):
                batches = []
                for _ in range(3):
                    values = range(next_value, next_value + PER_INSERT)
                    next_value += PER_INSERT
                    expected.update(values)
                    rows = ", ".join(f"({v % 7}, to_timestamp_seconds({1767225600 + v}), {v})" for v in values)
                    batches.append(f"INSERT INTO pushed (k, ts, v) VALUES {rows}")
                inserts.append(batches)
            delete = [f"DELETE FROM pushed WHERE v IN ({', '.join(map(str, sorted(gone)))})"] if gone else []
            must = [start(remige, w, batches) for batches in inserts + ([delete] if delete else [])]
            must.append(start(remige, w, ["REFRESH FEATURE VIEW computed FULL"]))
            may = [start(remige, w, ["OPTIMIZE FEATURE VIEW pushed"] * 3), start(remige, w, ["OPTIMIZE FEATURE VIEW pushed"] * 2),
                   start(remige, w, ["VACUUM FEATURE VIEW pushed RETAIN INTERVAL '1 hour'"]),
                   start(remige, w, ["OPTIMIZE FEATURE VIEW computed"] * 2)]
            for p in must:
                error = p.communicate()[1]
                assert p.returncode == 0, error
            for p in may:
                error = p.communicate()[1]
                assert p.returncode == 0 or lost_a_race(error), error
                lost += p.returncode != 0
            expected -= gone
            have = [r["v"] for r in sql(remige, w, "SELECT v FROM pushed ORDER BY v")]
            assert have == sorted(expected), (
                f"lost {sorted(expected - set(have))[:5]}, not expected {sorted(set(have) - expected)[:5]}, doubled {len(have) - len(set(have))}")
            found = sql(remige, w, "SELECT count(*) AS n, count(DISTINCT v) AS d, sum(v) AS total FROM computed")
            assert found == [{"n": 5000, "d": 5000, "total": 4999 * 2500}], found
        sql(remige, w, "OPTIMIZE FEATURE VIEW pushed")
        assert [r["v"] for r in sql(remige, w, "SELECT v FROM pushed ORDER BY v")] == sorted(expected)
        kinds = sql(remige, w, "SELECT kind, status, count(*) AS n FROM system.runs GROUP BY kind, status ORDER BY kind, status")
        assert not [r for r in kinds if r["status"] == "running"], kinds
        assert [r for r in kinds if r["kind"] == "optimize" and r["status"] == "succeeded"], kinds
        print(f"     {len(expected)} rows as they must be; {lost} OPTIMIZE or VACUUM lost a race; runs {kinds}", flush=True)


if __name__ == "__main__":
    main()
