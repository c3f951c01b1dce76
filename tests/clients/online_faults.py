#!/usr/bin/env python3
"""Faults that the online store has to survive, played with real processes: loaders and stores that are killed, silent,
full, emptied, corrupted, switched and shared. What is served is right or an error that says so; never half, never wrong.

    online_faults.py REMIGE [SEED] [--only CASE …] [--rounds N] [--list]
"""
import argparse
import os
import random
import sys
import tempfile
import time
import traceback

from faults import catalogs, loads, readers, stores
from faults.play import CASES, Play

MODULES = (loads, readers, stores, catalogs)


def main():
    options = argparse.ArgumentParser(usage=__doc__)
    options.add_argument("remige")
    options.add_argument("seed", nargs="?", type=int)
    options.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--list", action="store_true")
    chosen = options.parse_args()
    if chosen.list:
        for name, play in CASES.items():
            print(f"{name:28} {(play.__doc__ or '').strip()}")
        return
    seed = random.randrange(1 << 30) if chosen.seed is None else chosen.seed
    print(f"online_faults: {chosen.rounds} rounds, seed {seed}", flush=True)
    failed = []
    for name in chosen.only:
        with tempfile.TemporaryDirectory() as folder:
            play = Play(os.path.abspath(chosen.remige), folder, seed, chosen.rounds, name)
            start = time.monotonic()
            try:
                said = CASES[name](play)
                print(f"ok   {name}: {said} ({time.monotonic() - start:.1f} s)", flush=True)
            except (Exception, SystemExit):
                failed.append(name)
                traceback.print_exc()
                print(f"FAIL {name} (seed {seed}, {time.monotonic() - start:.1f} s)", flush=True)
            finally:
                play.close()
    if failed:
        sys.exit(f"online_faults: {len(failed)} FAILED: --only {' '.join(failed)}, seed {seed}")
    print("online_faults: passed")


if __name__ == "__main__":
    main()
