#!/usr/bin/env python3
"""A real server under attack: small messages that become large, large ones, clients that stop reading, sending or
greeting. All the time lookups are answered; the server lives, and stays below 2 GiB. REMIGE_LOOKUP_SECONDS says within which time: 1 holds
for a release build.

    wire_attack_check.py REMIGE
"""
import os
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time

import adbc_driver_flightsql.dbapi as flight_sql
import numpy as np
import pyarrow as pa
import pyarrow.flight

import raw_flight as raw

MIB = 1 << 20
MOST = 2 << 30
# A second in a release build on a machine of its own.
LONGEST = float(os.environ.get("REMIGE_LOOKUP_SECONDS", "10"))
FLAGS = ["--memory-limit", "1GiB", "--set", "server.handshake_timeout=2s", "--set", "server.sender_timeout=4s",
         "--set", "server.reader_timeout=4s", "--set", "server.message_timeout=2s"]


class Lookups:
    """Looks up one key again and again, and remembers the longest wait."""

    def __init__(self, address):
        self.connection = flight_sql.connect(address)
        self.longest, self.count, self.failed, self.stop = 0.0, 0, [], False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        cursor = self.connection.cursor()
        while not self.stop:
            since = time.monotonic()
            try:
                cursor.execute("SELECT orders FROM ONLINE_LOOKUP('f', $1)", (7,))
                assert cursor.fetchone() == (70,)
            except Exception as e:  # noqa: BLE001
                self.failed.append(str(e))
            self.longest, self.count = max(self.longest, time.monotonic() - since), self.count + 1
            time.sleep(0.02)

    def end(self):
        self.stop = True
        self.thread.join(timeout=30)


def put(address, command, table, options=None, seconds=60):
    """The status of a DoPut."""
    return put_messages(address, raw.put_messages(command, table, options), seconds)


def put_messages(address, messages, seconds=60):
    with raw.Connection(address, timeout=seconds) as connection:
        stream = connection.call("DoPut")
        for message in messages:
            connection.send(stream, message)
        if connection.answers[stream]["reset"] is None and not connection.answers[stream]["end"]:
            connection.send(stream, b"", end=True)
        return connection.answer(stream, seconds)[0]


def views(count, length, binary=False):
    """Views of one long value."""
    value = b"x" * length
    view = struct.pack("<i4sii", length, value[:4], 0, 0)
    kind = pa.binary_view() if binary else pa.string_view()
    return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(view * count), pa.py_buffer(value)])


def list_views(count, length, large=False):
    """Ranges that are all of one list."""
    kind, number = (pa.large_list_view, np.int64) if large else (pa.list_view, np.int32)
    values = pa.array(np.arange(length, dtype=np.int64))
    buffers = [None, pa.py_buffer(np.zeros(count, number)), pa.py_buffer(np.full(count, length, number))]
    return pa.Array.from_buffers(kind(pa.int64()), count, buffers, children=[values])


def dictionary(count, length):
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), pa.array(["x" * length]))


def runs(count, length):
    return pa.RunEndEncodedArray.from_arrays(pa.array([count], pa.int32()), pa.array(["x" * length]))


def expanding():
    """Small batches that would become gigabytes."""
    nested = pa.StructArray.from_arrays([views(200_000, 50_000)], ["a"])
    in_list = pa.ListArray.from_arrays(pa.array(np.arange(0, 200_001, 2, dtype=np.int32)), views(200_000, 50_000))
    of_lists = pa.DictionaryArray.from_arrays(pa.array(np.zeros(500_000, np.int8)), pa.array([list(range(5_000))]))
    return {
        "string_view": views(1_000_000, 100_000), "binary_view": views(1_000_000, 100_000, True),
        "list_view": list_views(40_000, 50_000), "large_list_view": list_views(40_000, 50_000, True),
        "dictionary": dictionary(1_000_000, 100_000), "run-end": runs(1_000_000, 100_000),
        "struct of views": nested, "list of views": in_list, "dictionary of lists": of_lists,
        "list_view of views": pa.Array.from_buffers(
            pa.list_view(pa.string_view()), 1000,
            [None, pa.py_buffer(np.zeros(1000, np.int32)), pa.py_buffer(np.full(1000, 1000, np.int32))], children=[views(1000, 10_000)]),
    }


def zero_width():
    rows = 1_000_000
    return {
        "null": pa.nulls(rows), "struct without fields": pa.StructArray.from_buffers(pa.struct([]), rows, [None]),
        "lists of no values": pa.Array.from_buffers(pa.list_(pa.int64(), 0), rows, [None], children=[pa.array([], pa.int64())]),
        "no columns": None, "nulls in lists": pa.ListArray.from_arrays(pa.array([0, rows], pa.int32()), pa.nulls(rows)),
    }


def expansions(address):
    for name, values in expanding().items():
        for mode in ["create", "append"]:
            table = pa.record_batch([values], ["x"])
            target = "made" if mode == "create" else "texts"
            got = put(address, raw.ingest(target, mode), table)
            assert got in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"), f"{name}, {mode}: {got}"
            if name in ("string_view", "dictionary", "list_view", "run-end"):
                assert got == "RESOURCE_EXHAUSTED", f"{name}, {mode}: {got}"
    for name, values in zero_width().items():
        columns = {} if values is None else {"x": values}
        batch = pa.record_batch(list(columns.values()), list(columns))
        put(address, raw.ingest("zero", "replace"), batch)
    # many columns that are not sent are filled in
    got = put(address, raw.ingest("wide"), pa.record_batch([pa.nulls(300_000)], ["c0"]))
    assert got in ("OK", "RESOURCE_EXHAUSTED"), got


def bombs(address):
    """Compressed bodies of zeros."""
    zeros = pa.record_batch([pa.array(np.zeros(40_000_000, np.int64))], ["n"])
    for codec in ["lz4", "zstd"]:
        got = put(address, raw.ingest("bomb", "create"), zeros, pa.ipc.IpcWriteOptions(compression=codec))
        assert got == "RESOURCE_EXHAUSTED", f"{codec}: {got}"


def large_messages(address):
    """Ten of 200 MB at once, to every RPC."""
    big = b"\0" * (200 * MIB)
    results = []

    def one(method):
        try:
            with raw.Connection(address, timeout=60) as connection:
                stream = connection.call(method)
                connection.send(stream, b"\0" + struct.pack(">I", len(big)))
                connection.send(stream, big, end=True)
                results.append((method, connection.answer(stream, 60)[0]))
        except (OSError, raw.Closed) as e:
            results.append((method, repr(e)))

    for method in ["GetFlightInfo", "DoAction", "GetSchema", "Handshake", "DoGet", "PollFlightInfo"]:
        threads = [threading.Thread(target=one, args=(method,)) for _ in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert all(got == "RESOURCE_EXHAUSTED" for _, got in results), results
    rows = pa.record_batch([pa.array(np.random.default_rng(1).integers(0, 1 << 60, 25 * MIB))], ["n"])

    shared = raw.put_messages(raw.ingest("big"), rows)[1:]

    def ingest(i):
        first = raw.put_messages(raw.ingest(f"big_{i}", "create"), rows.slice(0, 0))[:1]
        results.append(put_messages(address, first + shared, 240))

    results.clear()
    threads = [threading.Thread(target=ingest, args=(i,)) for i in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results.count("OK") >= 1 and set(results) <= {"OK", "RESOURCE_EXHAUSTED"}, results
    print(f"     10 ingests of 200 MB at once: {results.count('OK')} stored, the others told why", flush=True)


def runs_a_statement(address, seconds=20):
    with flight_sql.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**{"adbc.flight.sql.rpc.timeout_seconds.query": str(seconds)})
        cursor.execute("SELECT count(*) FROM texts")
        return cursor.fetchone()


def stalled_readers(address):
    """More of them than there are places."""
    client = pa.flight.connect(address)
    readers = []
    for _ in range(70):
        sql = "SELECT value, 'a text to fill the window ' || value FROM generate_series(1, 50000000)"
        kind = "type.googleapis.com/remige.v1.DirectQuery"
        ticket = raw.field(1, kind) + raw.field(2, raw.field(1, sql))
        try:
            reader = client.do_get(pa.flight.Ticket(ticket), pa.flight.FlightCallOptions(timeout=120))
            reader.read_chunk()
            readers.append(reader)
        except pa.flight.FlightError as e:
            readers.append(e)
        if len(readers) == 5:
            runs_a_statement(address)
    runs_a_statement(address)
    time.sleep(7)
    ended = 0
    for reader in readers[:3]:
        try:
            while True:
                reader.read_chunk()
        except StopIteration:
            raise AssertionError("a stalled reader got all of its rows") from None
        except pa.flight.FlightError as e:
            ended += "read nothing" in str(e)
    assert ended == 3, f"{ended} of 3 stalled readers were told"
    client.close()


def schemas_only(address):
    """Ingests that send a schema, and then nothing."""
    connections = [raw.Connection(address) for _ in range(70)]
    schema = raw.put_messages(raw.ingest("texts"), pa.table({"x": ["a"]}))[0]
    streams = []
    for connection in connections:
        streams.append(connection.call("DoPut"))
        connection.send(streams[-1], schema)
    runs_a_statement(address)
    for connection, stream in list(zip(connections, streams))[:5]:
        assert connection.answer(stream, 15)[0] in ("CANCELLED", "DEADLINE_EXCEEDED"), "a slow sender was not told"
    for connection in connections:
        connection.close()


def is_closed(s, seconds):
    s.settimeout(seconds)
    try:
        while s.recv(4096):
            pass
        return True
    except (ConnectionError, ssl.SSLError):
        return True
    except TimeoutError:
        return False


def silent_connections(address):
    host, port = address.rsplit("://", 1)[-1].rsplit(":", 1)
    connections = [socket.create_connection((host, int(port))) for _ in range(50)]
    connections[1].sendall(b"PRI * HTTP")
    since = time.monotonic()
    for s in connections:
        assert is_closed(s, 10), "a connection that says nothing is not closed"
        s.close()
    assert time.monotonic() - since < 9
    # half a message holds nothing for long
    with raw.Connection(address) as connection:
        stream = connection.call("GetFlightInfo")
        connection.send(stream, raw.grpc(b"x" * 1000)[:500])
        assert connection.answer(stream, 10)[0] in ("DEADLINE_EXCEEDED", "CANCELLED")


def too_many(remige, tmp):
    server = raw.Server(remige, os.path.join(tmp, "few"), "--set", "server.max_connections=3", "--set", "server.handshake_timeout=30s")
    kept = [raw.Connection(server.address) for _ in range(3)]
    refused = raw.Connection(server.address)
    try:
        while True:
            refused.read()
    except (raw.Closed, OSError):
        assert "server.max_connections" in (refused.gone or ""), refused.gone
    for connection in kept:
        connection.close()
    time.sleep(0.5)
    runs = flight_sql.connect(server.address, autocommit=True)
    runs.close()
    assert server.end() == 0


def silent_over_tls(remige, tmp):
    cert, key = (os.path.join(os.path.dirname(__file__), "../../src/server/testdata", f"localhost.{x}") for x in ("crt", "key"))
    server = raw.Server(remige, os.path.join(tmp, "tls"), "--tls-cert", cert, "--tls-key", key, "--set", "server.handshake_timeout=2s",
                        "--set", "server.idle_timeout=3s")
    host, port = server.address.rsplit("://", 1)[-1].rsplit(":", 1)
    bare = socket.create_connection((host, int(port)))
    half = socket.create_connection((host, int(port)))
    half.sendall(bytes.fromhex("16030100c8010000c40303") + b"\0" * 20)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    greeted = context.wrap_socket(socket.create_connection((host, int(port))))
    for name, s in [("bare", bare), ("half a greeting", half), ("no HTTP", greeted)]:
        assert is_closed(s, 12), f"TLS, {name}: not closed"
        s.close()
    assert server.end() == 0


def main():
    remige = sys.argv[1]
    with tempfile.TemporaryDirectory() as tmp:
        server = raw.Server(remige, os.path.join(tmp, "w"), *FLAGS)
        with flight_sql.connect(server.address, autocommit=True) as connection, connection.cursor() as cursor:
            for sql in ["CREATE ENTITY u KEY (user_id BIGINT)", "CREATE FEATURE VIEW f (orders BIGINT) ENTITY u EVENT TIMESTAMP ts ONLINE",
                        "INSERT INTO f VALUES (7, TIMESTAMP '2024-01-01 00:00:00', 70)", "CREATE TABLE texts (x VARCHAR)",
                        f"CREATE TABLE wide ({', '.join(f'c{i} BIGINT' for i in range(300))})"]:
                cursor.execute(sql)
        for attack in [expansions, bombs, large_messages, schemas_only, silent_connections, stalled_readers]:
            lookups, since = Lookups(server.address), time.monotonic()
            attack(server.address)
            lookups.end()
            resident = server.resident()
            print(f"     {attack.__name__}: {time.monotonic() - since:.1f} s, longest lookup {lookups.longest * 1000:.0f} ms of {lookups.count},"
                  f" {resident // MIB} MiB resident at most", flush=True)
            assert server.alive(), f"{attack.__name__} ended the server"
            assert not lookups.failed, lookups.failed[:3]
            assert resident < MOST, f"{attack.__name__}: {resident // MIB} MiB"
            assert lookups.longest < LONGEST, f"{attack.__name__}: a lookup took {lookups.longest:.1f} s"
        assert server.end() == 0
        too_many(remige, tmp)
        silent_over_tls(remige, tmp)


if __name__ == "__main__":
    main()
