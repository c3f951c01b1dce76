"""The processes under test: each on a free loopback port, each in a session of its own, all ended by the end."""
import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Service:
    """A running program and what belongs to its session."""

    def __init__(self, name, command, folder, cwd=None, env=None, stdout=None):
        os.makedirs(folder, exist_ok=True)
        self.name, self.log = name, os.path.join(folder, f"{name}.log")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, text=True,
                                            start_new_session=True)

    def wait_until(self, probe, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                if probe():
                    return self
            time.sleep(0.1)
        with open(self.log) as log:
            raise SystemExit(f"{self.name} did not become ready:\n{log.read()[-2000:]}")

    def cpu_seconds(self):
        """Of all living processes of the session, and of those that they waited for."""
        total = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/stat") as f:
                    fields = f.read().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid:
                    total += sum(map(int, fields[11:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def peak_rss_mb(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) / 1024

    def stop(self):
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class Redis(Service):
    """Without persistence; it begins with what `dump.rdb` of its folder holds, if that is there."""

    def __init__(self, name, folder):
        self.port = free_port()
        super().__init__(name, ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                "--dir", folder], folder)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.wait_until(lambda: self.ask("PING") == "+PONG")

    def ask(self, *words):
        """The first line of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as s:
            s.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(w)}\r\n{w}\r\n".encode() for w in words))
            with s.makefile("rb") as answer:
                line = answer.readline().decode().rstrip()
                return answer.read(int(line[1:])).decode() if line.startswith("$") and line != "$-1" else line

    def keys(self):
        return int(self.ask("DBSIZE").removeprefix(":"))

    def memory_bytes(self):
        return int(next(line.split(":")[1] for line in self.ask("INFO", "memory").splitlines() if line.startswith("used_memory:")))


class Remige(Service):
    """`remige serve` on a warehouse."""

    def __init__(self, name, program, warehouse, folder, online="embedded", *settings):
        port = free_port()
        # Nothing in the background: no schedules, no upkeep.
        quiet = ["schedule.check_every=0s", "maintenance.optimize_every=0s", "maintenance.vacuum_every=0s"]
        flags = [f for s in (*quiet, *settings) for f in ("--set", s)]
        super().__init__(name, [os.path.abspath(program), "serve", "-w", warehouse, "--listen", f"127.0.0.1:{port}", "--online", online, *flags],
                         folder, env={**os.environ, "RUST_LOG": "warn"})
        self.address = f"grpc://127.0.0.1:{port}"

        def ready():
            with open(self.log) as log:
                return "remige ready" in log.read()
        self.wait_until(ready)


class Feast(Service):
    """`feast serve` with one worker, its default. It would end every 1,000 requests and drop its connections."""

    def __init__(self, name, venv, repository, folder):
        self.port = free_port()
        super().__init__(name, [os.path.join(os.path.abspath(venv), "bin", "feast"), "serve", "-h", "127.0.0.1", "-p", str(self.port),
                                "--no-access-log", "--max-requests", "1000000000"], folder, cwd=repository,
                         env={**os.environ, "FEAST_USAGE": "False"})
        self.address = f"http://127.0.0.1:{self.port}"
        self.wait_until(lambda: urllib.request.urlopen(self.address + "/health", timeout=5).status == 200)
