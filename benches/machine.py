"""What the benchmarks say about the machine, and how they keep off its other users."""
import datetime
import importlib.metadata
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def busy_seconds():
    """CPU seconds the whole machine has spent since boot, all cores."""
    with open("/proc/stat") as f:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, f.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def wait_until_idle(share, patience):
    """Waits until other processes use less than this share of the machine."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = busy_seconds()
        time.sleep(2)
        if (busy_seconds() - before) / (2 * os.cpu_count()) < share:
            return True
    return False


def text(*cmd):
    """What a command prints; nothing where it fails."""
    p = subprocess.run(cmd, capture_output=True, text=True, cwd=HERE)
    return p.stdout.strip() if p.returncode == 0 else ""


def version_of(program):
    """`0.1.0 (release build)`"""
    program = os.path.abspath(program)
    profile = next((p for p in ("release", "debug") if f"/{p}/" in program), "?")
    return f"{text(program, '--version').split()[-1]} ({profile} build)"


def describe(packages):
    """Date, hardware, commit, and the versions of those Python packages that are installed."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory), "kernel": os.uname().release,
            "python": sys.version.split()[0], "versions": versions, "commit": text("git", "describe", "--always", "--dirty")}
