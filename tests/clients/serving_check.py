#!/usr/bin/env python3
"""Plays docs/serving.md from top to bottom, as a reader would: its SQL with `remige sql --connect`, its Python in one session.

    serving_check.py REMIGE

Twice, each time against a server of its own: with the embedded online store, and with Redis, which then falls silent,
so that the page's deadlines are over.

A ```text block right after a ```sql or ```python block is what that block prints; Python that prints must have one. The address
is the server's, and the page's deadlines of 0.1 s are made long: a debug build on a busy machine may need more. SQL
marked `error` is the work of tests/docs_check.py.
"""
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PAGE = "docs/serving.md"
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```\n", re.M | re.S)
# Far beyond what anything here takes: who hangs is stopped here.
HANG = 120


class Failed(Exception):
    pass


def blocks(text):
    """(language, mark, line, code, what it prints or None)"""
    found = list(BLOCK.finditer(text))
    for m, after in zip(found, found[1:] + [None]):
        shown = after and after[1] == "text" and not text[m.end():after.start()].strip()
        yield m[1], m[2].strip(), text.count("\n", 0, m.start(3)), m[3], after[3] if shown else None


def run_sql(remige, address, script, line, code):
    with open(script, "w") as f:
        f.write("\n" * line + code)
    done = subprocess.run([remige, "sql", "--connect", address, "-f", script], capture_output=True, text=True, timeout=HANG)
    if done.returncode != 0:
        raise Failed(done.stderr)
    return done.stdout


def run_python(names, address, line, code):
    code = code.replace("127.0.0.1:8815", address.removeprefix("grpc://"))
    code = re.sub(r"(?<![\d.])0\.1(?!\d)", str(HANG), code)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * line + code, PAGE, "exec"), names)
    return printed.getvalue()


def play(remige, address, folder, names):
    """Runs the page; `names` are what its Python knows."""
    with open(PAGE) as f:
        text = f.read()
    ran = {"sql": 0, "python": 0}
    for language, mark, line, code, shown in blocks(text):
        if language not in ran or mark.startswith("error"):
            continue
        try:
            if language == "sql":
                printed = run_sql(remige, address, os.path.join(folder, "block.sql"), line, code)
            else:
                printed = run_python(names, address, line, code)
                if printed and shown is None:
                    raise Failed(f"prints, and the page does not show it:\n{printed}")
            if shown is not None and printed != shown:
                raise Failed(f"the page shows\n{shown}but this is printed:\n{printed}")
        except Exception as e:
            raise Failed(f"{PAGE}:{line + 1}: {e if isinstance(e, Failed) else repr(e)}") from e
        ran[language] += 1
    assert ran["sql"] >= 5 and ran["python"] >= 3, ran
    print(f"ok   {ran['sql']} blocks of SQL, {ran['python']} of Python", flush=True)


@contextlib.contextmanager
def process(*command, ready, **options):
    p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
    watchdog = threading.Timer(HANG, p.kill)
    watchdog.start()
    try:
        line = next((line for line in p.stdout if ready in line), None)
        if line is None:
            raise Failed(f"did not start: {' '.join(command)}")
        yield p, line
    finally:
        watchdog.cancel()
        p.send_signal(signal.SIGCONT)
        p.terminate()
        p.wait()
        p.stdout.close()


@contextlib.contextmanager
def server(remige, folder, online):
    warehouse = os.path.join(folder, online.split(":")[0])
    with open(warehouse + ".log", "w+") as log:
        try:
            with process(remige, "serve", "-w", warehouse, "--online", online, "--listen", "127.0.0.1:0", ready="remige ready ", stderr=log) as (_, line):
                yield line.split()[-1]
        except BaseException:
            log.seek(0)
            sys.stderr.write("".join([line for line in log if " INFO " not in line][-20:]))
            raise


@contextlib.contextmanager
def session():
    names = {"__name__": "serving"}
    try:
        yield names
    finally:
        for name in ("cursor", "connection", "hurried", "client"):
            if name in names:
                names[name].close()


def time_is_over(names, address, redis):
    """What the page says of a deadline, with a store that does not answer."""
    import adbc_driver_manager

    redis.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(20):
        assert names["features"](names["keys"], seconds=0.05) is None
    late = names["flight_sql"].connect(address, autocommit=True, db_kwargs={
        f"adbc.flight.sql.rpc.timeout_seconds.{what}": "0.2" for what in ("query", "fetch")})
    with late, late.cursor() as cursor:
        try:
            cursor.execute(names["lookup"], (2, "pear", 10))
            cursor.fetchone()
            raise Failed("ADBC waited for a store that is silent, and had an answer")
        except adbc_driver_manager.OperationalError as e:
            assert e.status_code == adbc_driver_manager.AdbcStatusCode.TIMEOUT, e
    took = time.monotonic() - begun
    # the store's own bounds are 2 s and 4 s a lookup
    assert took < 15, took
    redis.send_signal(signal.SIGCONT)
    for _ in range(100):
        if names["features"](names["keys"], seconds=5) is not None:
            break
        time.sleep(0.1)
    else:
        raise Failed("no features after the store had come back")
    print("ok   deadlines that are over, and features again")


def main(remige):
    remige = os.path.realpath(remige)
    os.chdir(ROOT)
    sys.path.insert(0, "examples")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with server(remige, folder, "embedded") as address, session() as names:
            play(remige, address, folder, names)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        with process("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder,
                     ready="Ready to accept connections") as (redis, _), server(remige, folder, f"redis://127.0.0.1:{port}/0") as address:
            with session() as names:
                play(remige, address, folder, names)
                time_is_over(names, address, redis)
    print("serving_check: passed")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except Failed as e:
        sys.exit(f"serving_check: FAILED: {e}")
