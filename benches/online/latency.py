#!/usr/bin/env python3
"""One Python client, one call after the other: what a model server in Python waits for.

    latency.py --mode raw-mget|ticket|prepared --address URL [--batch 100] [--seconds 5]
    latency.py --mode check --address grpc://… [--feast http://…] --parquet FILE

`raw-mget` is redis-py with hiredis, `ticket` pyarrow.flight, `prepared` ADBC. Requests are built beforehand;
answers are taken as Arrow tables (raw-mget: as bytes). `check` compares answers with the file, value by value.
"""
import argparse
import json
import os
import random
import sys
import time
import urllib.request

import pyarrow as pa

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "..", "..", "examples"))
from data import FEATURES, KEY  # noqa: E402
from lookup_ticket import lookup_ticket  # noqa: E402

NAMES = [f"f{i}" for i in range(FEATURES)]


def keys(name, ids):
    return pa.record_batch({name: pa.array(ids, pa.int64())})


def raw_mget(args, drawn):
    import collections

    import redis
    client = redis.Redis.from_url(args.address)
    cursor, seen, by_length = 0, 0, collections.defaultdict(list)
    while seen < args.pool * args.batch + 1_000:
        cursor, page = client.scan(cursor, count=5_000)
        seen += len(page)
        for k in page:
            by_length[len(k)].append(k)
        if cursor == 0:
            break
    # rows outnumber all else, and their names are equally long
    stored = max(by_length.values(), key=len)
    requests = [[stored[i % len(stored)] for i in ids] for ids in drawn]
    return requests, client.mget, lambda rows: sum(r is not None for r in rows)


def ticket(args, drawn):
    import pyarrow.flight as flight
    client = flight.connect(args.address.replace("grpc://", "grpc+tcp://", 1))
    requests = [flight.Ticket(lookup_ticket(args.view, keys(KEY, ids))) for ids in drawn]
    return requests, lambda t: client.do_get(t).read_all(), lambda table: table.num_rows


def prepared(args, drawn):
    import adbc_driver_flightsql.dbapi as flight_sql
    cursor = flight_sql.connect(args.address, autocommit=True).cursor()
    sql = f"SELECT * FROM ONLINE_LOOKUP('{args.view}', $1)"

    def call(rows):
        # the driver prepares a statement once, and again when its text changes
        cursor.execute(sql, rows)
        return cursor.fetch_arrow_table()
    return [keys("$1", ids) for ids in drawn], call, lambda table: table.num_rows


def measure(args):
    rng = random.Random(args.seed)
    drawn = [[rng.randrange(args.entities) for _ in range(args.batch)] for _ in range(args.pool)]
    requests, call, count = {"raw-mget": raw_mget, "ticket": ticket, "prepared": prepared}[args.mode](args, drawn)
    warm = time.perf_counter() + 1
    for r in requests:
        got = count(call(r))
        assert got == args.batch, f"{got} rows instead of {args.batch}"
        if time.perf_counter() > warm:
            break
    nanos, end, turn = [], time.perf_counter() + args.seconds, 0
    while time.perf_counter() < end:
        request = requests[turn % len(requests)]
        start = time.perf_counter_ns()
        call(request)
        nanos.append(time.perf_counter_ns() - start)
        turn += 1
    nanos.sort()
    at = {f"p{p}_us": nanos[min(len(nanos) - 1, len(nanos) * p // 100)] / 1e3 for p in (50, 90, 99)}
    print(json.dumps({"mode": args.mode, "clients": 1, "batch": args.batch, "ops": len(nanos), "ops_s": len(nanos) / args.seconds,
                      "keys_s": len(nanos) * args.batch / args.seconds, **at, "max_us": nanos[-1] / 1e3, "errors": 0}))


def by_feast(address, view, ids):
    body = json.dumps({"features": [f"{view}:{n}" for n in NAMES], "entities": {KEY: ids}}).encode()
    request = urllib.request.Request(address + "/get-online-features", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        got = json.load(answer)
    names = got["metadata"]["feature_names"]
    return {n: got["results"][names.index(n)]["values"] for n in NAMES}


def check(args):
    """Keys that are there: the same values everywhere. Beyond the last key: nothing anywhere."""
    import pyarrow.parquet as pq
    rng = random.Random(args.seed)
    ids = rng.sample(range(args.entities), 200)
    want = pq.read_table(args.parquet, filters=[(KEY, "in", ids)])
    place = {k: i for i, k in enumerate(want[KEY].to_pylist())}
    want = want.take(pa.array([place[i] for i in ids]))
    want = {n: want[n].to_pylist() for n in NAMES}
    for make, name in ((ticket, "the ticket"), (prepared, "the prepared statement")):
        requests, call, _ = make(args, [ids, [args.entities + 1]])
        got = call(requests[0])
        assert got[KEY].to_pylist() == ids, f"{name} answers other keys"
        for n in NAMES:
            assert got[n].to_pylist() == want[n], f"{name} answers other values of {n}"
        assert call(requests[1])["f0"].to_pylist() == [None], f"{name} finds a key that is not there"
    if args.feast:
        got = by_feast(args.feast, args.view, ids)
        for n in NAMES:
            assert got[n] == want[n], f"Feast answers other values of {n}"
    print(json.dumps({"checked": len(ids)}))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mode", choices=["raw-mget", "ticket", "prepared", "check"], required=True)
    p.add_argument("--address", required=True)
    p.add_argument("--feast")
    p.add_argument("--parquet")
    p.add_argument("--view", default="bench")
    p.add_argument("--batch", type=int, default=100)
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--entities", type=int, default=1_000_000)
    p.add_argument("--pool", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    check(args) if args.mode == "check" else measure(args)


if __name__ == "__main__":
    main()
