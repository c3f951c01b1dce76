"""Processes of the fault cases, each on a free port of the loopback."""
import os
import signal
import subprocess
import time

import adbc_driver_flightsql.dbapi as flightsql
from redis_check import HANG, Redis as OneRedis
from schedule_check import free_port, until

from .resp import Refused, Resp

# A test may look into its own small Redis whole; the product may not.
ALL = "*"


class Redis(OneRedis):
    def call(self, *words):
        with Resp(self.port) as redis:
            return redis(*words)

    def keys(self):
        return set(self.call("KEYS", ALL))

    def contents(self):
        """All keys and their values, in Redis' own form."""
        with Resp(self.port) as redis:
            return {key: redis("DUMP", key) for key in redis("KEYS", ALL)}

    def memory(self):
        info = self.call("INFO", "memory").decode()
        return int(next(line for line in info.splitlines() if line.startswith("used_memory:")).split(":")[1])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Cluster:
    """Three primaries, each with a replica."""

    SLOTS = 16384

    def __init__(self, folder):
        self.nodes, self.buses = [], []
        for i in range(6):
            home = os.path.join(folder, f"node{i}")
            os.mkdir(home)
            # by itself it would take its port + 10000, which need not be free
            self.buses.append(free_port())
            self.nodes.append(Redis(home, "--cluster-enabled", "yes", "--cluster-port", str(self.buses[-1]), "--cluster-node-timeout", "1000",
                                    "--cluster-replica-validity-factor", "0",
                                    "--repl-diskless-sync-delay", "0"))
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{n.port}" for n in self.nodes)

    def start(self):
        for n in self.nodes:
            n.start()
        for i, n in enumerate(self.nodes):
            n.call("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for i, n in enumerate(self.nodes[:3]):
            n.call("CLUSTER", "ADDSLOTSRANGE", i * self.SLOTS // 3, (i + 1) * self.SLOTS // 3 - 1)
        for n in self.nodes[1:]:
            n.call("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self.buses[0])
        until("all nodes know one another", lambda: all(len(self.lines(n)) == 6 for n in self.nodes))
        for primary, replica in zip(self.nodes[:3], self.nodes[3:]):
            replica.call("CLUSTER", "REPLICATE", primary.call("CLUSTER", "MYID"))
        self.until_whole()

    def lines(self, node):
        return node.call("CLUSTER", "NODES").decode().splitlines()

    def living(self):
        return [n for n in self.nodes if n.process.poll() is None]

    def primaries(self):
        return [n for n in self.living() if n.call("ROLE")[0] == b"master"]

    def until_whole(self):
        def whole():
            ok = all("cluster_state:ok" in n.call("CLUSTER", "INFO").decode() for n in self.living())
            replicas = [n.call("ROLE") for n in self.living()]
            linked = all(r[0] == b"master" or r[3] == b"connected" for r in replicas)
            return ok and linked and len(self.primaries()) == 3
        until("the cluster is whole", whole)

    def keys(self):
        return set().union(*(n.keys() for n in self.primaries()))

    def lose_a_primary(self, rng):
        victim = rng.choice(self.primaries())
        victim.kill()
        return victim

    def stop(self):
        for n in self.nodes:
            n.stop()


class Sentinel:
    """A primary, a replica and three sentinels."""

    NAME = "features"

    def __init__(self, folder):
        self.folder = folder
        self.data = []
        for i in range(2):
            home = os.path.join(folder, f"data{i}")
            os.mkdir(home)
            self.data.append(Redis(home, "--repl-diskless-sync-delay", "0"))
        self.sentinels = []
        self.url = None

    def start(self):
        primary, replica = self.data
        primary.start()
        replica.start()
        replica.call("REPLICAOF", "127.0.0.1", primary.port)
        until("the replica is linked", lambda: replica.call("ROLE")[3] == b"connected")
        ports = []
        for i in range(3):
            port = free_port()
            conf = os.path.join(self.folder, f"sentinel{i}.conf")
            with open(conf, "w") as f:
                f.write(f"port {port}\nbind 127.0.0.1\ndir {self.folder}\nsentinel monitor {self.NAME} 127.0.0.1 {primary.port} 2\n"
                        f"sentinel down-after-milliseconds {self.NAME} 1000\nsentinel failover-timeout {self.NAME} 5000\n")
            self.sentinels.append(subprocess.Popen(["redis-server", conf, "--sentinel"], stdout=subprocess.DEVNULL))
            ports.append(port)
        self.ports = ports
        until("the sentinels know one another and the replica", lambda: all(map(self.informed, ports)))
        self.url = "redis+sentinel://" + ",".join(f"127.0.0.1:{p}" for p in ports) + "/" + self.NAME

    def informed(self, port):
        try:
            with Resp(port) as s:
                facts = s("SENTINEL", "MASTER", self.NAME)
        except (OSError, Refused):
            return False
        facts = dict(zip(facts[::2], facts[1::2]))
        return facts[b"num-other-sentinels"] == b"2" and facts[b"num-slaves"] == b"1"

    def primary(self):
        with Resp(self.ports[0]) as s:
            port = int(s("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)[1])
        return next(n for n in self.data if n.port == port)

    def primaries(self):
        return [self.primary()]

    def keys(self):
        return self.primary().keys()

    def until_whole(self):
        def whole():
            primary = self.primary()
            if primary.process.poll() is not None or primary.call("ROLE")[0] != b"master":
                return False
            # one that came back empty must have followed before it may be chosen
            roles = [n.call("ROLE") for n in self.data if n is not primary and n.process.poll() is None]
            return all(r[0] == b"slave" and r[3] == b"connected" for r in roles)
        until("a replica is primary, and the other follows", whole)

    def lose_a_primary(self, _rng):
        victim = self.primary()
        victim.kill()
        return victim

    def stop(self):
        for s in self.sentinels:
            s.kill()
            s.wait()
        for n in self.data:
            n.stop()


class Server:
    """`remige serve`; its log is in `log`."""

    def __init__(self, remige, warehouse, log, *options):
        self.log = log
        with open(log, "a") as err:
            self.process = subprocess.Popen([remige, "serve", "-w", warehouse, "--listen", "127.0.0.1:0", *options],
                                            stdout=subprocess.PIPE, stderr=err, text=True)
        ready = self.process.stdout.readline().strip()
        if not ready.startswith("remige ready "):
            self.stop()
            raise AssertionError(open(log).read())
        self.address = ready.removeprefix("remige ready ")

    def connect(self):
        limits = {f"adbc.flight.sql.rpc.timeout_seconds.{call}": str(HANG) for call in ("query", "fetch", "update")}
        return flightsql.connect(self.address, db_kwargs=limits, autocommit=True)

    def finish(self):
        """Ends it as an operator would; it must end well."""
        self.process.terminate()
        code = self.process.wait(timeout=HANG)
        assert code == 0, f"the server ended with {code} after SIGTERM:\n{open(self.log).read()[-2000:]}"

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def wait_for(process, within=HANG):
    """The end of a process: its exit code and what it said on standard error."""
    said = process.communicate(timeout=within)[1]
    return process.returncode, said


def pause(seconds):
    time.sleep(seconds)
