#!/usr/bin/env python3
"""Walks the command line as a user does: scripts, formats, exit codes, the shell on a pseudo terminal,
the starter project, and a server with a client.

    python3 tests/cli/walk.py target/debug/remige [name of one check]

Needs only Python's standard library. Every check works in a directory of its own.
"""
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time

BINARY = os.path.abspath(sys.argv[1])
LIMIT = 60  # seconds: only to end a run that hangs


def environment(home):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("REMIGE_")}
    return dict(kept, XDG_DATA_HOME=os.path.join(home, "data"), TERM="xterm")


def remige(*args, stdin="", cwd, env=None):
    done = subprocess.run([BINARY, *args], input=stdin, capture_output=True, text=True, cwd=cwd, timeout=LIMIT,
                          env=dict(environment(cwd), **(env or {})))
    return done.returncode, done.stdout, done.stderr


def expect(condition, *shown):
    if not condition:
        raise AssertionError("\n".join(str(s) for s in shown))


def check_usage(cwd):
    for args in (["sql", "--formt", "csv"], ["frob"], ["sql", "-f", "absent.sql"], ["sql", "--set", "memry_limit=1", "-c", "SELECT 1"]):
        code, _, err = remige(*args, cwd=cwd)
        expect(code == 2, args, code, err)
    code, _, err = remige("sql", "-c", "SELECT 1", cwd=cwd, env={"REMIGE_WAREHOSE": "x"})
    expect(code == 2 and "REMIGE_WAREHOUSE" in err, code, err)
    with open(os.path.join(cwd, "remige.toml"), "w") as f:
        f.write("[server]\nlisen = 'x'\n")
    code, _, err = remige("sql", "-c", "SELECT 1", cwd=cwd)
    expect(code == 2 and "server.listen" in err, code, err)
    for sub in ("sql", "serve", "init"):
        code, out, _ = remige(sub, "--help", cwd=cwd)
        expect(code == 0 and "Example" in out, sub, out)


def check_formats(cwd):
    query = "SELECT 1 AS a, TIMESTAMP '2024-01-01' AS t, CAST(NULL AS VARCHAR) AS n"
    code, out, err = remige("sql", "--format", "json", "-c", query, cwd=cwd)
    expect(code == 0 and json.loads(out) == {"a": 1, "t": "2024-01-01T00:00:00Z", "n": None}, code, out, err)
    code, out, err = remige("sql", "--format", "csv", "-c", query, cwd=cwd)
    expect(code == 0 and out == "a,t,n\n1,2024-01-01T00:00:00,\n", code, out, err)
    code, out, err = remige("sql", stdin=query, cwd=cwd)
    expect(code == 0 and "(1 row)" in out and "NULL" in out, code, out, err)
    code, out, err = remige("sql", "--format", "csv", "-c", "SELECT 1 AS a", "-c", "SELECT 2 AS a", cwd=cwd)
    expect(code == 0 and out == "a\n1\na\n2\n", code, out, err)


def check_failing_script(cwd):
    with open(os.path.join(cwd, "s.sql"), "w") as f:
        f.write("-- first line\nSELECT 1 AS one;\n\n  SELECT nope\n  FROM (SELECT 1 AS yes);\nSELECT 'never' AS x;\n")
    code, out, err = remige("sql", "-f", "s.sql", cwd=cwd)
    expect(code == 1, code, out, err)
    expect("s.sql:4:10" in err and "  SELECT nope" in err and "^^^^" in err, err)
    expect("one" in out and "never" not in out, out)


def check_closed_pipe(cwd):
    run = subprocess.Popen([BINARY, "sql", "--format", "csv", "-c", "SELECT * FROM generate_series(1, 100000000)"], cwd=cwd,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(cwd))
    expect(run.stdout.readline().strip() == "value")
    run.stdout.close()
    code, err = run.wait(LIMIT), run.stderr.read()
    expect(code == 1 and "standard output was closed" in err and "panicked" not in err, code, err)


def check_interrupted_script(cwd):
    run = subprocess.Popen([BINARY, "sql", "-c", "SELECT 1", "-c", "SELECT count(*) FROM range(1000000000) a, range(1000000) b"], cwd=cwd,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(cwd))
    while "row)" not in run.stdout.readline():
        expect(run.poll() is None, "ended early")
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=LIMIT)
    expect(run.returncode == 1 and "cancelled" in err, run.returncode, err)


class Shell:
    """The shell on a terminal. What was matched once is not looked at again."""

    def __init__(self, cwd, *args):
        self.unread = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(BINARY, [BINARY, "sql", *args], environment(cwd))
        self.prompt()

    def read(self, seconds):
        """Takes what the shell has written; False if nothing came within `seconds`."""
        ready, _, _ = select.select([self.fd], [], [], max(0, seconds))
        if ready:
            self.unread += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(self.fd, 65536).decode(errors="replace"))
        return bool(ready)

    def until(self, mark):
        end = time.monotonic() + LIMIT
        while not (found := re.search(mark, self.unread)):
            expect(self.read(end - time.monotonic()), "the shell did not show", mark, self.unread)
        self.unread = self.unread[found.end():]

    def terminal_is(self, raw):
        """Waits until the line editor has taken the terminal (raw), or has given it back."""
        end = time.monotonic() + LIMIT
        while bool(termios.tcgetattr(self.fd)[3] & termios.ICANON) == raw:
            expect(time.monotonic() < end, "the terminal did not become", "raw" if raw else "cooked", self.unread)
            self.read(0.01)

    def prompt(self):
        self.until("remige> ")
        self.terminal_is(raw=True)

    def type(self, text, mark):
        os.write(self.fd, text.encode())
        self.until(mark)

    def run(self, text, mark):
        """Enters `text` and waits for `mark`, then for the next prompt."""
        self.type(text + "\r", mark)
        self.prompt()

    def leave(self, how=b"\\q"):
        os.write(self.fd, how + b"\r")
        _, status = os.waitpid(self.pid, 0)
        expect(os.waitstatus_to_exitcode(status) == 0, status)


def walk_shell(cwd, *args):
    shell = Shell(cwd, *args)
    shell.run("CREATE TABLE zebra AS VALUES (1);", "CREATE TABLE\r\n")
    shell.type("SELECT *\r", r"SELECT \*\r?\n")
    shell.type("FROM zeb\t", "zebra")
    shell.run(";", r"\(1 row\)")
    shell.run("\\d", "zebra[^\n]*TABLE")
    shell.run("CREATE ENTITY keeper KEY (id BIGINT);", "CREATE ENTITY\r\n")
    shell.run("CREATE FEATURE VIEW fed (meals BIGINT) ENTITY keeper EVENT TIMESTAMP ts;", "CREATE FEATURE VIEW\r\n")
    shell.run("\\d", "fed[^\n]*FEATURE VIEW(.|\n)*keeper[^\n]*ENTITY")
    shell.run("\\de", "keeper")
    shell.run("\\df date_trun", "date_trunc")
    shell.run("\\x on", "records")
    shell.run("SELECT 1 AS one, 2 AS two;", "two[^\n]*2")
    shell.run("\\x off", "tables")
    # what is open shows in the prompt; \\q and Ctrl-C work there too
    shell.type("SELECT 'it\r", "remige'> ")
    shell.type("is' AS open\r", "remige-> ")
    shell.run(";", "open")
    with open(os.path.join(cwd, "more.sql"), "w") as f:
        f.write("SELECT 40 + 2 AS answer;\n")
    shell.run("\\i more.sql", "42")
    shell.run("\\o out.txt", "")
    shell.run("SELECT 'into the file' AS place;", "")
    shell.run("\\o", "")
    with open(os.path.join(cwd, "out.txt")) as f:
        expect("into the file" in f.read(), "\\o writes results to a file")
    shell.run("\\timing", "Timing is on")
    shell.run("SELECT * FROM range(5000);", r"only the first 1000 rows(.|\n)*Time: ")
    os.write(shell.fd, b"SELECT count(*) FROM range(1000000000) a, range(1000000) b;\r")
    shell.terminal_is(raw=False)
    os.write(shell.fd, b"\x03")
    shell.until("cancelled")
    shell.prompt()
    shell.run("SELEC 1;", r"line:1:1")
    shell.run("\\format json", r"json\r?\n")
    shell.run("SELECT 7 AS seven;", r'\{"seven":7\}')
    shell.leave()


def check_leaving(cwd):
    for how in (b"exit", b"quit;", b"\\q"):
        Shell(cwd).leave(how)
    shell = Shell(cwd)
    shell.type("SELECT 1\r", "remige-> ")
    shell.leave()


def check_new_warehouse(cwd):
    code, _, err = remige("sql", "-w", "wherehouse", "-c", "SELECT 1", cwd=cwd)
    expect(code == 0 and "no warehouse at wherehouse" in err, code, err)
    code, _, err = remige("sql", "-w", "wherehouse", "-c", "SELECT 1", cwd=cwd)
    expect(code == 0 and err == "", code, err)


def check_runs_are_told_in_a_line(cwd):
    setup = ("CREATE TABLE t AS SELECT 1 AS id, TIMESTAMP '2026-01-01' AS ts, 2 AS x; CREATE ENTITY e KEY (id BIGINT);"
             "CREATE FEATURE VIEW v ENTITY e EVENT TIMESTAMP ts AS SELECT id, ts, x FROM t")
    remige("sql", "-c", setup, cwd=cwd)
    code, out, err = remige("sql", "-c", "REFRESH FEATURE VIEW v FULL", cwd=cwd)
    expect(code == 0 and re.fullmatch(r"REFRESH public\.v@v1: 1 rows written, \d+\.\d s\n", out), out, err)
    code, out, err = remige("sql", "--format", "json", "-c", "REFRESH FEATURE VIEW v FULL", cwd=cwd)
    expect(code == 0 and json.loads(out)["rows_written"] == 1, out, err)


def check_shell(cwd):
    walk_shell(cwd)
    with open(os.path.join(cwd, "data", "remige", "history")) as f:
        expect("SELECT *\\nFROM zebra;" in f.read(), "the history holds the statement of two lines")


def check_starter_project(cwd):
    code, out, err = remige("init", "demo", cwd=cwd)
    expect(code == 0 and "remige sql -f 1_declare.sql" in out, code, out, err)
    code, _, err = remige("init", "demo", cwd=cwd)
    expect(code == 1 and "not empty" in err, code, err)
    demo = os.path.join(cwd, "demo")
    for script in ("1_declare.sql", "2_refresh.sql", "3_train.sql", "4_serve.sql", "1_declare.sql", "2_refresh.sql"):
        code, out, err = remige("sql", "-f", script, cwd=demo)
        expect(code == 0, script, out, err)
        expect("warning" not in err, script, err)
    query = "SELECT * FROM ONLINE_LOOKUP('purchase_v1', (1, 35.0), (999, 10.0), status => true)"
    _, out, _ = remige("sql", "--format", "json", "-c", query, cwd=demo)
    known, unknown = (json.loads(line) for line in out.splitlines())
    expect(known["c__status"] == "PRESENT" and known["orders_so_far"] > 0, known)
    expect(abs(known["basket_ratio"] - 35.0 / known["avg_amount"]) < 1e-9, known)
    expect(unknown["c__status"] == "NOT_FOUND" and unknown["avg_amount"] is None, unknown)
    _, out, _ = remige("sql", "--format", "json", "-c", "SELECT count(*) AS n FROM purchase_train", cwd=demo)
    expect(json.loads(out) == {"n": 200}, out)


def check_server_and_client(cwd):
    server = subprocess.Popen([BINARY, "serve", "--listen", "127.0.0.1:0"], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=environment(cwd))
    try:
        ready = server.stdout.readline()
        expect(re.fullmatch(r"remige ready grpc://127\.0\.0\.1:\d+\n", ready), ready)
        address = ready.split()[-1]
        code, out, err = remige("sql", "--connect", address, "--format", "json", "-c", "SELECT 1 AS a, NULL AS n", cwd=cwd)
        expect(code == 0 and json.loads(out) == {"a": 1, "n": None}, code, out, err)
        code, out, err = remige("sql", "--connect", address, stdin="SELECT 1;\n\n SELECT nope FROM (SELECT 1 AS yes);", cwd=cwd)
        expect(code == 1 and "<stdin>:3:9" in err and "^^^^" in err, code, out, err)
        walk_shell(cwd, "--connect", address)
    finally:
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=LIMIT)
    expect(server.returncode == 0, server.returncode, err)
    code, _, err = remige("sql", "--connect", address, "-c", "SELECT 1", cwd=cwd)
    expect(code == 1 and "remige serve" in err, code, err)


def main():
    wanted = sys.argv[2:]
    checks = {name[6:]: check for name, check in globals().items() if name.startswith("check_")}
    unknown = [w for w in wanted if w not in checks]
    expect(not unknown, f"no such check: {unknown}; there are {list(checks)}")
    failed = 0
    for name, check in checks.items():
        if wanted and name not in wanted:
            continue
        with tempfile.TemporaryDirectory() as cwd:
            try:
                check(cwd)
                print(f"ok     {name}", flush=True)
            except (AssertionError, subprocess.TimeoutExpired) as e:
                failed += 1
                print(f"FAILED {name}\n{e}", flush=True)
    print(f"{'FAILED' if failed else 'ok'}: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
