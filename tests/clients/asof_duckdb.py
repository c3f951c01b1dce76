#!/usr/bin/env python3
"""Forms A and B of the ASOF join against DuckDB, on random tables: all four comparisons, inner and left,
integer, text and composite keys, NULLs, WITHIN. Time stamps of one key are unique, so that both engines must agree.

    asof_duckdb.py REMIGE [ROUNDS [SEED]]
"""
import json
import os
import random
import subprocess
import sys
import tempfile

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

OPERATORS = [">=", ">", "<=", "<"]


def table(rng, rows, keys, unique):
    out, seen = {"id": [], "k": [], "name": [], "ts": [], "v": []}, set()
    for i in range(rows):
        k = None if rng.random() < 0.05 else rng.randrange(keys)
        t = None if rng.random() < 0.03 else 1_767_225_600_000_000 + rng.randrange(0, 500) * 1_000_003
        if unique and (k, t) in seen:
            continue
        seen.add((k, t))
        out["id"].append(i)
        out["k"].append(k)
        out["name"].append(None if k is None else f"key {k % 7}")
        out["ts"].append(t)
        out["v"].append(None if rng.random() < 0.05 else rng.randrange(1000))
    return pa.table({
        "id": pa.array(out["id"], pa.int64()), "k": pa.array(out["k"], pa.int64()), "name": pa.array(out["name"], pa.string()),
        "ts": pa.array(out["ts"], pa.timestamp("us", tz="UTC")), "v": pa.array(out["v"], pa.int64()),
    })


def main():
    remige = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 30)
    print(f"asof_duckdb: {rounds} rounds, seed {seed}", flush=True)
    rng = random.Random(seed)
    compared = 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as tmp:
            keys = rng.choice([1, 5, 40])
            for name, rows, unique in (("l", rng.randrange(0, 400), False), ("p", rng.randrange(0, 900), True)):
                pq.write_table(table(rng, rows, keys, unique), os.path.join(tmp, f"{name}.parquet"), row_group_size=rng.choice([50, 1000]))
            con = duckdb.connect()
            setup, queries = [], []
            for name in ("l", "p"):
                path = os.path.join(tmp, f"{name}.parquet")
                con.execute(f"CREATE TABLE {name} AS FROM read_parquet('{path}')")
                setup.append(f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{path}'")
            for op in OPERATORS:
                for on in ("l.k = p.k", "l.k = p.k AND l.name = p.name"):
                    for kind, duck in (("", ""), ("LEFT", "LEFT")):
                        b = f"SELECT l.id AS id, p.id AS pid, p.v AS v FROM l ASOF {kind} JOIN p ON {on} AND l.ts {op} p.ts"
                        queries.append((b, b.replace(f"ASOF {kind}", f"ASOF {duck}")))
                    a = f"SELECT l.id AS id, p.id AS pid, p.v AS v FROM l ASOF JOIN p MATCH_CONDITION (l.ts {op} p.ts) ON {on}"
                    queries.append((a, f"SELECT l.id AS id, p.id AS pid, p.v AS v FROM l ASOF LEFT JOIN p ON {on} AND l.ts {op} p.ts"))
            near = "SELECT l.id AS id, p.id AS pid, p.v AS v FROM l ASOF JOIN p MATCH_CONDITION (l.ts >= p.ts) ON l.k = p.k WITHIN INTERVAL '9 seconds'"
            ttl = "abs(epoch_us(l.ts) - epoch_us(p.ts)) <= 9000000"
            queries.append((near, f"SELECT l.id AS id, CASE WHEN {ttl} THEN p.id END AS pid, CASE WHEN {ttl} THEN p.v END AS v FROM l ASOF LEFT JOIN p ON l.k = p.k AND l.ts >= p.ts"))
            script = os.path.join(tmp, "q.sql")
            with open(script, "w") as f:
                f.write(";\n".join(setup + [f"SELECT {i} AS query" + f";\n{q}" for i, (q, _) in enumerate(queries)]))
            out = subprocess.run([remige, "sql", "-w", os.path.join(tmp, "w"), "--format", "json", "-f", script], capture_output=True, text=True)
            assert out.returncode == 0, out.stderr
            answers, at = {}, None
            for line in out.stdout.splitlines():
                row = json.loads(line)
                if "query" in row:
                    at = row["query"]
                    answers[at] = []
                else:
                    answers[at].append((row["id"], row["pid"], row["v"]))
            order = lambda r: tuple((x is None, x or 0) for x in r)
            for i, (q, duck) in enumerate(queries):
                want = sorted(con.execute(duck).fetchall(), key=order)
                got = sorted(answers[i], key=order)
                assert got == want, f"{q}\nseed {seed}: {len(got)} rows, {len(want)} expected; first difference: {next((a, b) for a, b in zip(got + [None], want + [None]) if a != b)}"
                compared += 1
    print(f"ok   {compared} joins answer like DuckDB's")
    print("asof_duckdb: passed")


if __name__ == "__main__":
    main()
