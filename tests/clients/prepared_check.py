#!/usr/bin/env python3
"""Statements that were prepared, described or put into a ticket, and whose names mean something else by now; and what
a ticket may do.

    python prepared_check.py grpc://127.0.0.1:8815

Exit code 0: everything held. Needs adbc-driver-flightsql, adbc-driver-manager, pyarrow.
"""

import sys
import uuid

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager as adbc
import pyarrow as pa
import pyarrow.flight as flight

SCHEMA = "prepared_" + uuid.uuid4().hex[:8]
failures = []


def check(what, ok, got=None):
    print(f"  {'ok  ' if ok else 'FAIL'} {what}" + ("" if ok else f"; got {got!r}"), flush=True)
    if not ok:
        failures.append(what)


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def any_of(kind, value):
    return field(1, kind.encode()) + field(2, value)


def command(sql):
    """The descriptor of a CommandStatementQuery."""
    return flight.FlightDescriptor.for_command(any_of("type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery", field(1, sql.encode())))


def direct(sql):
    """A ticket that holds a query."""
    return flight.Ticket(any_of("type.googleapis.com/remige.v1.DirectQuery", field(1, sql.encode())))


def message(work):
    try:
        got = work()
    except (adbc.Error, pa.ArrowException, OSError) as e:
        return str(e)
    return f"no error, but {got!r}"


def again(what, work):
    """`work` must be refused in words that say what to do."""
    said = message(work)
    check(f"{what}: prepare again", "prepare the statement again" in said and "nternal error" not in said and "promised" not in said, said)


def setup(cur):
    for sql in [
        f"CREATE SCHEMA {SCHEMA}",
        f"CREATE ENTITY {SCHEMA}.e KEY (id BIGINT)",
        f"CREATE FEATURE VIEW {SCHEMA}.v (a BIGINT, b BIGINT) ENTITY {SCHEMA}.e EVENT TIMESTAMP ts ONLINE",
        f"INSERT INTO {SCHEMA}.v VALUES (1, TIMESTAMP '2026-01-01', 10, 20)",
        f"CREATE FEATURE SERVICE {SCHEMA}.s AS SELECT v.a, v.b FROM {SCHEMA}.v",
        f"CREATE TABLE {SCHEMA}.t AS SELECT 1 AS id, 10 AS a, 20 AS b",
        f"CREATE VIEW {SCHEMA}.w AS SELECT id, a, b FROM {SCHEMA}.t",
    ]:
        cur.execute(sql)


ONE = pa.record_batch({"$1": pa.array([1], pa.int64())})
TWO = pa.record_batch({"$1": pa.array([1, 2], pa.int64())})

SERVICE = "CREATE OR REPLACE FEATURE SERVICE {0}.s AS SELECT {1} FROM {0}.v"
TABLE = "CREATE OR REPLACE TABLE {0}.t AS SELECT {1}"


def changes(cur):
    """What is prepared, how it changes, how it is as it was."""
    lookup = f"SELECT * FROM ONLINE_LOOKUP('{SCHEMA}.s', $1)"
    for how, items in [
        ("order", "v.b, v.a"),
        ("another name", "v.a AS c, v.b"),
        ("another type", "CAST(v.a AS DOUBLE) / 4 AS a, v.b"),
        ("one more", "v.a, v.b, v.a + v.b AS c"),
        ("one less", "v.b"),
    ]:
        yield f"a lookup, {how}", lookup, SERVICE.format(SCHEMA, items), SERVICE.format(SCHEMA, "v.a, v.b")
    read = f"SELECT * FROM {SCHEMA}.t WHERE id = $1"
    for how, items in [
        ("order", "1 AS id, 20 AS b, 10 AS a"),
        ("another name", "1 AS id, 10 AS c, 20 AS b"),
        ("another type", "1 AS id, 2.7 AS a, 20 AS b"),
        ("one more", "1 AS id, 10 AS a, 20 AS b, 30 AS c"),
        ("one less", "1 AS id, 10 AS a"),
        ("another type of the parameter's column", "'1' AS id, 10 AS a, 20 AS b"),
    ]:
        yield f"a table, {how}", read, TABLE.format(SCHEMA, items), TABLE.format(SCHEMA, "1 AS id, 10 AS a, 20 AS b")
    yield (
        "a view, order",
        f"SELECT * FROM {SCHEMA}.w WHERE id = $1",
        f"CREATE OR REPLACE VIEW {SCHEMA}.w AS SELECT id, b, a FROM {SCHEMA}.t",
        f"CREATE OR REPLACE VIEW {SCHEMA}.w AS SELECT id, a, b FROM {SCHEMA}.t",
    )


def prepared(address, cur, other):
    print("prepared statements", flush=True)
    for what, sql, change, back in changes(cur):
        cur.adbc_statement.set_sql_query(sql)
        cur.adbc_statement.prepare()
        kept = cur.adbc_statement

        def run(rows):
            kept.bind(rows) if isinstance(rows, pa.RecordBatch) else None
            stream, _ = kept.execute_query()
            return pa.RecordBatchReader._import_from_c(stream.address).read_all().to_pylist()

        before = run(ONE)
        check(f"{what}: works first", len(before) == 1, before)
        other.execute(change)
        again(what, lambda: run(ONE))
        again(f"{what}, two rows", lambda: run(TWO))
        again(f"{what}, no rows", lambda: run(ONE.slice(0, 0)))
        with flightsql.connect(address, autocommit=True) as fresh, fresh.cursor() as c:
            c.execute(sql, (1,))
            check(f"{what}: works when prepared now", c.fetch_arrow_table().num_rows in (0, 1))
        other.execute(back)
        check(f"{what}: the old one works where all is as it was", run(ONE) == before, run(ONE))


def inserts(cur, other):
    print("prepared INSERTs", flush=True)
    other.execute(f"CREATE TABLE {SCHEMA}.i (a BIGINT, b BIGINT)")
    cur.adbc_statement.set_sql_query(f"INSERT INTO {SCHEMA}.i VALUES ($1, $2)")
    cur.adbc_statement.prepare()

    def run():
        cur.adbc_statement.bind(pa.record_batch({"$1": pa.array([1, 2], pa.int64()), "$2": pa.array([10, 20], pa.int64())}))
        return cur.adbc_statement.execute_update()

    run()
    for columns in ["b BIGINT, a BIGINT", "a DOUBLE, b BIGINT", "a BIGINT, b BIGINT, c BIGINT"]:
        other.execute(f"CREATE OR REPLACE TABLE {SCHEMA}.i ({columns})")
        said = message(run)
        check(f"INSERT into ({columns})", "again" in said or "wants 3 column" in said, said)
        other.execute(f"SELECT count(*) FROM {SCHEMA}.i")
        check(f"INSERT into ({columns}): nothing stored", other.fetchall() == [(0,)])


def tickets(address, other):
    print("tickets", flush=True)
    client = flight.connect(address.replace("grpc://", "grpc+tcp://"))
    for what, sql, change, back in [
        ("table", f"SELECT * FROM {SCHEMA}.t", TABLE.format(SCHEMA, "1 AS id, 20 AS b, 10 AS a"), TABLE.format(SCHEMA, "1 AS id, 10 AS a, 20 AS b")),
        (
            "lookup",
            f"SELECT * FROM ONLINE_LOOKUP('{SCHEMA}.s', 1)",
            SERVICE.format(SCHEMA, "v.b, v.a, v.a AS c"),
            SERVICE.format(SCHEMA, "v.a, v.b"),
        ),
    ]:
        info = client.get_flight_info(command(sql))
        ticket = info.endpoints[0].ticket
        other.execute(change)
        again(f"the ticket of a query, {what}", lambda: client.do_get(ticket).read_all().to_pylist())
        check(f"a ticket that holds the query, {what}", client.do_get(direct(sql)).read_all().num_rows == 1)
        other.execute(back)
        check(f"the ticket of a query, {what}: works where all is as it was", client.do_get(ticket).read_all().num_rows == 1)
    for sql in [
        f"INSERT INTO {SCHEMA}.t VALUES (5, 5, 5)",
        f"DELETE FROM {SCHEMA}.v",
        f"WITH q AS (SELECT 1 AS id) DELETE FROM {SCHEMA}.v WHERE id IN (SELECT id FROM q)",
        f"DROP VIEW {SCHEMA}.w",
        f"MATERIALIZE FEATURE VIEW {SCHEMA}.v",
        f"COPY {SCHEMA}.t TO '/tmp/never_written_{SCHEMA}.parquet'",
        f"EXPLAIN ANALYZE INSERT INTO {SCHEMA}.t VALUES (5, 5, 5)",
        f"EXPLAIN (ANALYZE) INSERT INTO {SCHEMA}.t VALUES (5, 5, 5)",
        f"EXPLAIN ANALYZE VERBOSE COPY {SCHEMA}.t TO '/tmp/never_written_{SCHEMA}.parquet'",
        f"EXPLAIN ANALYZE DELETE FROM {SCHEMA}.v",
    ]:
        said = message(lambda: client.do_get(direct(sql)).read_all())
        check(f"a ticket refuses {sql[:40]}…", "may only read" in said or "is no query" in said, said)
        if sql.startswith("EXPLAIN"):
            said = message(lambda: client.get_flight_info(command(sql)))
            check(f"GetFlightInfo refuses {sql[:40]}…", "is no query" in said, said)
    client.do_get(direct(f"EXPLAIN DELETE FROM {SCHEMA}.v")).read_all()
    left = client.do_get(direct(f"SELECT (SELECT count(*) FROM {SCHEMA}.t) AS t, (SELECT count(*) FROM {SCHEMA}.v) AS v")).read_all().to_pylist()
    check("nothing was changed", left == [{"t": 1, "v": 1}], left)


def deletes(cur):
    print("DELETE", flush=True)
    cur.execute(f"INSERT INTO {SCHEMA}.v SELECT value, TIMESTAMP '2026-01-01', value + 0, value - 0 FROM generate_series(2, 6)")
    for condition, want in [("WHERE id IN (SELECT 99)", 0), ("WHERE false", 0), ("WHERE id IN (SELECT id FROM {0}.t)", 1)]:
        cur.execute(f"DELETE FROM {SCHEMA}.v " + condition.format(SCHEMA))
        check(f"DELETE {condition} removes {want}", cur.rowcount == want, cur.rowcount)
    cur.executemany(f"DELETE FROM {SCHEMA}.v WHERE id = $1 AND b NOT IN (SELECT 6)", [(2,), (3,), (6,), (77,)])
    cur.execute(f"SELECT id FROM {SCHEMA}.v ORDER BY id")
    check("bound rows remove what they name", cur.fetchall() == [(4,), (5,), (6,)])
    cur.execute(f"SELECT id, a FROM ONLINE_LOOKUP('{SCHEMA}.v', 1, 2, 3, 4, 5, 6)")
    got = cur.fetchall()
    check("and so it is online", got == [(1, None), (2, None), (3, None), (4, 4), (5, 5), (6, 6)], got)
    said = message(lambda: cur.execute(f"DELETE FROM {SCHEMA}.v WHERE id > 0 LIMIT 1"))
    check("LIMIT is refused", "LIMIT is not built yet" in said, said)


def main(address):
    with flightsql.connect(address, autocommit=True) as connection, flightsql.connect(address, autocommit=True) as second:
        with connection.cursor() as cur, second.cursor() as other:
            setup(other)
            prepared(address, cur, other)
            inserts(cur, other)
            tickets(address, other)
            deletes(other)
    print(f"{len(failures)} failed", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
