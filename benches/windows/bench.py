#!/usr/bin/env python3
"""Time engines on windowed aggregates as of labels.

    bench.py run --presets "W-M W-X" --remige target/release/remige --results r.jsonl
    bench.py report --results r.jsonl --out docs/benchmarks/windows.md

Every engine runs in a fresh process and writes one Parquet file: for each label the aggregates of the events of its
key in each window. The engines take turns: run 0 of all, run 1 of all, …. What is measured, and that a run starts on
an idle machine: benches/asof/bench.py. The answer of each engine is compared with the first one's, row for row.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))

import engines
import machine
import report
from data import PRESETS, Data
from ours import Remige
from process import measure, warm

OURS = ("remige", "datafusion")
LIMITS = {"W-M": "256MB"}


def compare(d, first, second):
    """Rows of `second`, and how many values are not those of `first` (floats within 1e-9; counts and sums of nothing are 0 or NULL)."""
    import duckdb
    con = duckdb.connect()
    con.execute("SET threads=2")
    equal = lambda c: (f"(a.{c} IS NOT DISTINCT FROM b.{c} OR abs(a.{c} - b.{c}) <= 1e-9 * greatest(abs(a.{c}), abs(b.{c}), 1))"
                       if not c.startswith(("count", "sum")) else f"abs(coalesce(a.{c}, 0) - coalesce(b.{c}, 0)) <= 1e-9 * greatest(abs(a.{c}), abs(b.{c}), 1)")
    wrong = " + ".join(f"count(*) FILTER (WHERE NOT coalesce({equal(c)}, false))" for c in d.columns())
    rows, differ = con.execute(f"SELECT count(*), {wrong} FROM read_parquet('{first}') a FULL JOIN read_parquet('{second}') b USING (n)").fetchone()
    return {"rows": rows, "differ": differ}


def run_preset(args, name, note):
    # in a process of its own, as `compared` says
    subprocess.run([sys.executable, os.path.abspath(__file__), "make", "--preset", name, "--data-dir", args.data_dir], check=True)
    d = Data(name, args.data_dir)
    ours = Remige(args.remige, d)
    ours.prepare(args.fresh)
    lineup = args.engines.split(",")
    lineup += [f"remige@{LIMITS[name]}"] if name in LIMITS else []
    warm([d.labels, d.events])
    env = {**os.environ, "POLARS_MAX_THREADS": str(args.threads)}
    with tempfile.TemporaryDirectory(dir=args.scratch) as tmp:
        first = os.path.join(tmp, "first.parquet")
        for i in range(args.runs):
            for engine in list(lineup):
                why = engines.able(engine, d)
                if why:
                    if i == 0:
                        note({"data": name, "engine": engine, "run": 0, "status": why})
                    continue
                out = os.path.join(tmp, "out.parquet")
                mode, _, limit = engine.partition("@")
                if mode in OURS:
                    cmd = ours.command(mode, out, args.threads, limit)
                else:
                    cmd = [sys.executable, os.path.abspath(__file__), "child", "--engine", engine, "--preset", name, "--data-dir", args.data_dir,
                           "--out", out, "--threads", str(args.threads)]
                machine.wait_until_idle(args.max_others / 2, args.patience)
                rec = {"data": name, "engine": engine, "run": i, **measure(cmd, env, args.mem_limit_gb, args.timeout)}
                if rec["status"] == "ok" and not os.path.exists(first):
                    os.rename(out, first)
                elif rec["status"] == "ok" and i == 0:
                    rec["check"] = compared(args, name, first, out)
                note(rec)
                print(f"{name:6} {engine:14} run {i}: {rec['status'][:160]}  wall {rec['wall_s']:.2f} s  cpu {rec['cpu_s']:.2f} s  "
                      f"rss {rec['rss_mb']:.0f} MB  {rec.get('check', '')}", flush=True)
                if rec["status"] != "ok":
                    lineup.remove(engine)


def compared(args, name, first, out):
    """In a process of its own: the peak of an engine begins at the size of the process that starts it."""
    p = subprocess.run([sys.executable, os.path.abspath(__file__), "compare", "--preset", name, "--data-dir", args.data_dir, "--first", first,
                        "--out", out], capture_output=True, text=True)
    return json.loads(p.stdout) if p.returncode == 0 else {"error": p.stderr.strip()[-200:]}


def run(args):
    os.makedirs(os.path.dirname(os.path.abspath(args.results)), exist_ok=True)

    def note(rec):
        with open(args.results, "a") as f:
            f.write(json.dumps(rec) + "\n")

    session = machine.describe(("duckdb", "polars", "numpy", "pyarrow"))
    session["versions"]["remige"] = machine.version_of(args.remige)
    note({"session": {**session, "threads": args.threads, "command": "benches/windows/bench.py " + shlex.join(sys.argv[1:])}})
    for name in args.presets.replace(",", " ").split():
        run_preset(args, name, note)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="mode", required=True)
    r = sub.add_parser("run")
    r.add_argument("--presets", default="W-M W-Z W-X W-10 W-10X", help="of: " + ", ".join(PRESETS))
    r.add_argument("--data-dir", default=os.path.join(HERE, "data"))
    r.add_argument("--engines", default=",".join(["remige", *engines.ENGINES, "datafusion"]))
    r.add_argument("--remige", required=True)
    r.add_argument("--runs", type=int, default=3)
    r.add_argument("--threads", type=int, default=os.cpu_count())
    r.add_argument("--results", required=True, help="JSON lines are appended here")
    r.add_argument("--scratch", help="folder for outputs and spill files")
    r.add_argument("--fresh", action="store_true", help="make the views again")
    r.add_argument("--mem-limit-gb", type=float, default=18, help="an engine that needs more is killed")
    r.add_argument("--timeout", type=float, default=300)
    r.add_argument("--max-others", type=float, default=0.1)
    r.add_argument("--patience", type=float, default=60, help="seconds to wait for an idle machine before a run")
    c = sub.add_parser("child")
    c.add_argument("--engine", required=True)
    c.add_argument("--threads", type=int, required=True)
    k = sub.add_parser("compare")
    k.add_argument("--first", required=True)
    for parser in (c, k):
        for name in ("--preset", "--data-dir", "--out"):
            parser.add_argument(name, required=True)
    m = sub.add_parser("make")
    for name in ("--preset", "--data-dir"):
        m.add_argument(name, required=True)
    t = sub.add_parser("report")
    t.add_argument("--results", nargs="+", required=True)
    t.add_argument("--out", help="write this page; else print")
    args = p.parse_args()
    if args.mode == "run":
        run(args)
    elif args.mode == "make":
        Data(args.preset, args.data_dir).make()
    elif args.mode == "compare":
        print(json.dumps(compare(Data(args.preset, args.data_dir), args.first, args.out)))
    elif args.mode == "child":
        d = Data(args.preset, args.data_dir)
        print(f"engine_seconds={engines.ENGINES[args.engine](d, d.steps(), args.out, args.threads):.4f}")
    else:
        page = report.page(args.results)
        if args.out:
            with open(args.out, "w") as f:
                f.write(page)
        else:
            print(page, end="")


if __name__ == "__main__":
    main()
