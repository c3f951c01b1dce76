#!/usr/bin/env python3
"""Faults that the online store has to survive, played with real processes: loaders and stores that are killed, silent,
full, emptied, corrupted, switched and shared. What is served is right or an error that says so; never half, never wrong.

    online_faults.py REMIGE [SEED] [--only CASE …] [--rounds N] [--jobs N] [--list]
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed

from faults import catalogs, loads, readers, stores
from faults.play import CASES, Play

MODULES = (loads, readers, stores, catalogs)
# These begin first, so that none of them is left for the end.
LONG = ("loader_asleep", "primary_lost_sentinel", "writes_lost_sentinel", "store_silent")


def main():
    options = argparse.ArgumentParser(usage=__doc__)
    options.add_argument("remige")
    options.add_argument("seed", nargs="?", type=int)
    options.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    options.add_argument("--rounds", type=int, default=2)
    # cases wait for leases and failovers most of the time
    options.add_argument("--jobs", type=int, default=3)
    options.add_argument("--list", action="store_true")
    chosen = options.parse_args()
    if chosen.list:
        for name, play in CASES.items():
            print(f"{name:28} {(play.__doc__ or '').strip()}")
        return
    seed = random.randrange(1 << 30) if chosen.seed is None else chosen.seed
    # whoever stops us gets what `finally` clears away, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("online_faults: stopped"))
    if len(chosen.only) == 1:
        sys.exit(not play_one(chosen.only[0], chosen, seed))
    print(f"online_faults: {chosen.rounds} rounds, seed {seed}", flush=True)
    failed = play_all(chosen, seed)
    if failed:
        sys.exit(f"online_faults: {len(failed)} FAILED: --only {' '.join(failed)}, seed {seed}")
    print("online_faults: passed")


def play_one(name, chosen, seed):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        play = Play(os.path.abspath(chosen.remige), folder, seed, chosen.rounds, name)
        start = time.monotonic()
        try:
            said = CASES[name](play)
            print(f"ok   {name}: {said} (seed {seed}, {time.monotonic() - start:.1f} s)", flush=True)
            return True
        except (Exception, SystemExit):
            traceback.print_exc(file=sys.stdout)
            print(f"FAIL {name} (seed {seed}, {time.monotonic() - start:.1f} s)", flush=True)
            return False
        finally:
            play.close()


def play_all(chosen, seed):
    """Each case in a process of its own, so many at once; answers which failed."""
    running, lock = set(), threading.Lock()

    def play(name):
        command = [sys.executable, __file__, chosen.remige, str(seed), "--rounds", str(chosen.rounds), "--only", name]
        with lock:
            if running is None:
                return "", False
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            running.add(process)
        said = process.communicate()[0]
        with lock:
            if running is not None:
                running.discard(process)
        return said, process.returncode == 0
    failed = []
    with ThreadPoolExecutor(chosen.jobs) as jobs:
        cases = {jobs.submit(play, name): name for name in sorted(chosen.only, key=lambda name: name not in LONG)}
        try:
            for done in as_completed(cases):
                said, passed = done.result()
                print(said, end="", flush=True)
                if not passed:
                    failed.append(cases[done])
        except BaseException:
            with lock:
                left, running = running, None
            for process in left:
                process.terminate()
            raise
    return failed


if __name__ == "__main__":
    main()
