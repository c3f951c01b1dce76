"""Runs a command in a process of its own and measures it."""
import os
import signal
import subprocess
import threading
import time

import machine


def anon_kb(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def measure(cmd, env, mem_limit_gb, timeout):
    busy = machine.busy_seconds()
    start = time.perf_counter()
    # Its own process group, so that a kill also reaches an engine's helpers.
    child = subprocess.Popen(cmd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, start_new_session=True)
    peak, status = 0, None
    output = {}
    readers = [threading.Thread(target=lambda n=n, s=s: output.__setitem__(n, s.read()))
               for n, s in (("out", child.stdout), ("err", child.stderr))]
    for r in readers:
        r.start()
    while True:
        pid, code, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, anon_kb(child.pid))
        if peak > mem_limit_gb * 1e6:
            status = "memory limit"
        elif time.perf_counter() - start > timeout:
            status = "timeout"
        if status:
            os.killpg(child.pid, signal.SIGKILL)
            _, code, usage = os.wait4(child.pid, 0)
            break
        time.sleep(0.02)
    wall = time.perf_counter() - start
    child.returncode = code
    for r in readers:
        r.join()
    if status is None and code != 0:
        status = "exit " + str(os.waitstatus_to_exitcode(code)) + ": " + output["err"].strip()[-300:]
    inner = None
    for line in output["out"].splitlines():
        if line.startswith("engine_seconds="):
            inner = float(line.split("=")[1])
    cpu = usage.ru_utime + usage.ru_stime
    others = max(0.0, machine.busy_seconds() - busy - cpu) / (wall * os.cpu_count())
    return {"status": status or "ok", "wall_s": wall, "engine_s": inner, "cpu_s": cpu, "others": others,
            "rss_mb": usage.ru_maxrss / 1024, "anon_mb": peak / 1024}


def warm(paths):
    for path in paths:
        with open(path, "rb") as f:
            while f.read(1 << 24):
                pass
