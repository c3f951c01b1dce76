#!/usr/bin/env python3
"""Parameters whose types only the bound values give, and updates that are answered before the client ends its stream.

    parameters_check.py REMIGE
"""
import datetime
import decimal
import os
import sys
import tempfile

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow as pa
import pyarrow.flight

import raw_flight as raw

D = decimal.Decimal
ANSWERS = [
    ("SELECT ?", (5,), [(5,)]), ("SELECT ?", ("a",), [("a",)]), ("SELECT ?", (D("1.50"),), [(D("1.50"),)]),
    ("SELECT ?", (2.5,), [(2.5,)]), ("SELECT ?", (True,), [(True,)]), ("SELECT ? AS x", (datetime.date(2026, 1, 2),), [(datetime.date(2026, 1, 2),)]),
    ("SELECT $1 + $2", (1, 2), [(3,)]), ("SELECT $1 + $2", (1, 2.5), [(3.5,)]), ("SELECT $1 + $2", (D("1.25"), D("2.25")), [(D("3.50"),)]),
    ("SELECT $1 * 2", (21,), [(42,)]), ("VALUES (?)", (7,), [(7,)]), ("VALUES ($1, $2)", (7, "x"), [(7, "x")]),
    ("VALUES ($1, $2), ($3, $4)", (1, "a", 2, "b"), [(1, "a"), (2, "b")]), ("SELECT max(?)", (9,), [(9,)]),
    ("SELECT max($1), min($2)", (D("9.5"), "z"), [(D("9.5"), "z")]), ("SELECT coalesce(?, 3)", (None,), [(3,)]),
    ("SELECT x + 1 FROM (SELECT ? AS x) t", (4,), [(5,)]), ("SELECT abs(?)", (-4,), [(4,)]), ("SELECT ? || 'b'", ("a",), [("ab",)]),
    ("SELECT CASE WHEN ? THEN ? ELSE ? END", (True, 1, 2), [(1,)]), ("WITH c AS (SELECT ? AS x) SELECT max(x) FROM c", (3,), [(3,)]),
    ("SELECT ? UNION ALL SELECT ?", (1, 2), [(1,), (2,)]), ("SELECT * FROM (VALUES (?, ?)) v(a, b)", (1, "q"), [(1, "q")]),
    ("SELECT value FROM generate_series(1, 5) LIMIT ?", (2,), [(1,), (2,)]),
    ("SELECT value FROM generate_series(1, 5) LIMIT ? OFFSET ?", (2, 1), [(2,), (3,)]),
    ("SELECT CAST(? AS BIGINT)", ("12",), [(12,)]), ("SELECT CAST(? AS VARCHAR)", (12,), [("12",)]), ("SELECT ?::DOUBLE", (3,), [(3.0,)]),
]
ANNOUNCED = [
    ("SELECT value FROM generate_series(1, 5) LIMIT ?", pa.int64()), ("SELECT CAST(? AS BIGINT)", pa.int64()),
    ("SELECT ?::TIMESTAMP", "timestamp"), ("INSERT INTO t (n) SELECT ?", pa.int64()), ("INSERT INTO t (n) VALUES (?)", pa.int64()),
]


def main():
    remige = sys.argv[1]
    with tempfile.TemporaryDirectory() as tmp:
        server = raw.Server(remige, os.path.join(tmp, "w"))
        with flight_sql.connect(server.address, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (n BIGINT, s VARCHAR)")
            for sql, values, want in ANSWERS:
                cursor.execute(sql, values)
                got = cursor.fetchall()
                assert sorted(got, key=str) == want, f"{sql} with {values}: {got}"
            for sql, want in ANNOUNCED:
                told = cursor.adbc_prepare(sql)[0].type
                assert told == want or str(told).startswith(str(want)), f"{sql} is announced with {told}"
            # one handle, values of other types one after another
            for value in (1, "a", D("2.5")):
                cursor.execute("SELECT ?", (value,))
                assert cursor.fetchall() == [(value,)]
            cursor.executemany("INSERT INTO t SELECT ?, ?", [(1, "a"), (2, "b")])
            cursor.executemany("INSERT INTO t VALUES (? + 1, ? || 'x')", [(1, "a"), (2, "b")])
            cursor.execute("SELECT n, s FROM t ORDER BY n, s")
            assert cursor.fetchall() == [(1, "a"), (2, "ax"), (2, "b"), (3, "bx")]
        at_once(server.address)
        unreadable(server.address)
        modes(server.address)
        assert server.end() == 0


def at_once(address):
    """An update is answered while the client's stream is still open."""
    client = pa.flight.connect(address)
    for n in range(3):
        command = raw.update(f"INSERT INTO t (n) VALUES ({100 + n})")
        writer, reader = client.do_put(pa.flight.FlightDescriptor.for_command(command), pa.schema([]))
        if n == 2:
            writer.done_writing()
        assert reader.read().to_pybytes() == raw.field(1, 1), "one row"
        writer.close()
    with raw.Connection(address) as connection:
        stream = connection.call("DoPut")
        connection.send(stream, raw.grpc(raw.flight_data(raw.update("INSERT INTO t (n) VALUES (103)"))))
        assert connection.answer(stream)[0] == "OK"
    client.close()
    with flight_sql.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT n FROM t WHERE n >= 100 ORDER BY n")
        assert cursor.fetchall() == [(100,), (101,), (102,), (103,)]


def unreadable(address):
    """What cannot be read is the client's fault."""
    for method in ["GetFlightInfo", "GetSchema", "DoGet", "DoAction", "DoPut", "PollFlightInfo", "Handshake"]:
        for message in [b"\xff" * 20, b"\x0a\xff\xff\xff\xff\x0f", b"\x12\x05ab"]:
            with raw.Connection(address) as connection:
                stream = connection.call(method)
                connection.send(stream, raw.grpc(message), end=True)
                got = connection.answer(stream)[0]
                assert got == "INVALID_ARGUMENT", f"{method} {message}: {got}"
        with raw.Connection(address) as connection:
            stream = connection.call(method)
            connection.send(stream, raw.grpc(b"x" * 100)[:50], end=True)
            got = connection.answer(stream)[0]
            assert got == "INVALID_ARGUMENT", f"{method}, half a message: {got}"


def modes(address):
    """Codes that drivers act on."""
    def put(command, table):
        with raw.Connection(address) as connection:
            stream = connection.call("DoPut")
            connection.send(stream, b"".join(raw.put_messages(command, table)), end=True)
            return connection.answer(stream)

    got, _ = put(raw.ingest("t"), pa.table({"n": [1], "nowhere": [2]}))
    assert got == "ALREADY_EXISTS", got
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "A"])
    got, said = put(raw.ingest("twice", "create"), twice)
    assert got == "INVALID_ARGUMENT", (got, said)
    got, _ = put(raw.ingest("n" * 100_000, "create"), pa.table({"n": [1]}))
    assert got in ("OK", "INVALID_ARGUMENT"), got


if __name__ == "__main__":
    main()
