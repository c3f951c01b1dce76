#!/usr/bin/env python3
"""Walks through a running `remige serve` with the stock ADBC driver, as a Python user would.

    python adbc_walk.py grpc://127.0.0.1:8815 [SECTION ...]

Prints what it checks; exit code 0: everything held, 1: something did not.
Needs adbc-driver-flightsql, adbc-driver-manager, pyarrow. It works in a schema with a name of its
own, which it drops at the end where the server can drop a schema with what is in it.
"""

import datetime as dt
import sys
import traceback
import uuid
import warnings

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager as adbc
import pyarrow as pa

SCHEMA = "walk_" + uuid.uuid4().hex[:8]
UTC = dt.timezone.utc
COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
failures = []


def check(what, ok, got=None):
    print(f"  {'ok  ' if ok else 'FAIL'} {what}" + ("" if ok else f"; got {got!r}"), flush=True)
    if not ok:
        failures.append(what)


def same(what, got, want):
    check(f"{what}: {want!r}" if len(repr(want)) < 90 else what, got == want, got)


def refused(what, status, words, work):
    """`work` must fail with this ADBC status and a message that holds all `words`."""
    try:
        work()
    except adbc.Error as e:
        missing = [w for w in words if w not in str(e)]
        check(f"{what}: {status.name}", e.status_code == status, (e.status_code, str(e)))
        if words:
            check(f"{what}: the message says {', '.join(map(repr, words))}", not missing, str(e))
    else:
        check(f"{what}: refused", False, "no error")


def rows(cur, sql, parameters=None):
    cur.execute(sql, parameters)
    return cur.fetchall()


def session(cur):
    cur.execute(f"CREATE SCHEMA {SCHEMA}")
    same("CREATE SCHEMA returns no rows", cur.fetchall() if cur.description else [], [])


def queries(cur):
    same("one row", rows(cur, "SELECT 1 AS a, 'x' AS b"), [(1, "x")])
    same("column names", [c[0] for c in cur.description], ["a", "b"])
    same("no rows, but a schema", rows(cur, "SELECT 1 AS a WHERE false"), [])
    same("column names without rows", [c[0] for c in cur.description], ["a"])
    same("a NULL", rows(cur, "SELECT CAST(NULL AS VARCHAR) AS n"), [(None,)])
    cur.execute("SELECT * FROM generate_series(1, 300000) AS t(v)")
    table = cur.fetch_arrow_table()
    same("many rows", table.num_rows, 300000)
    cur.execute("SELECT repeat('x', 200000) AS fat FROM generate_series(1, 50)")
    same("messages stay below 4 MiB", sum(len(s.as_py()) for s in cur.fetch_arrow_table()["fat"]), 10_000_000)
    cur.execute(
        "SELECT arrow_cast('v', 'Utf8View') AS v, arrow_cast('d', 'Dictionary(Int32, Utf8)') AS d, "
        "arrow_cast(1.5, 'Float16') AS h, CAST(1.25 AS DECIMAL(10, 2)) AS n, [1, 2] AS l, "
        "TIMESTAMP '2026-01-02 03:04:05' AS t"
    )
    table = cur.fetch_arrow_table()
    same("views and dictionaries arrive as text", [table.schema.field(i).type for i in range(2)], [pa.string(), pa.string()])
    same("half floats arrive as floats", table.schema.field("h").type, pa.float32())
    same("their values", [table.column(i)[0].as_py() for i in range(3)], ["v", "d", 1.5])


def tables(cur):
    t = f"{SCHEMA}.t"
    cur.execute(f"CREATE TABLE {t} (id BIGINT, name VARCHAR)")
    cur.execute(f"INSERT INTO {t} VALUES (1, 'one'), (2, 'two')")
    same("rowcount of INSERT", cur.rowcount, 2)
    same("it ran once", rows(cur, f"SELECT count(*) FROM {t}"), [(2,)])
    same("rowcount of INSERT … SELECT", insert(cur, f"INSERT INTO {t} SELECT id + 2, name FROM {t}"), 2)
    same("all rows", rows(cur, f"SELECT id, name FROM {t} ORDER BY id"), [(1, "one"), (2, "two"), (3, "one"), (4, "two")])
    cur.execute(f"CREATE TABLE {SCHEMA}.copy AS SELECT * FROM {t} WHERE id < 3")
    same("CREATE TABLE AS", rows(cur, f"SELECT count(*) FROM {SCHEMA}.copy"), [(2,)])
    cur.execute(f"DROP TABLE {SCHEMA}.copy")
    refused("reading a dropped table", adbc.AdbcStatusCode.NOT_FOUND, ["copy"], lambda: cur.execute(f"SELECT * FROM {SCHEMA}.copy"))


def insert(cur, sql, parameters=None):
    cur.execute(sql, parameters)
    return cur.rowcount


def parameters(cur):
    t = f"{SCHEMA}.p"
    cur.execute(f"CREATE TABLE {t} (id BIGINT, name VARCHAR, at TIMESTAMP)")
    same("? as parameter", rows(cur, "SELECT CAST(? AS BIGINT) + 1, CAST(? AS VARCHAR)", (41, "x")), [(42, "x")])
    same("$n as parameter", rows(cur, "SELECT CAST($2 AS VARCHAR), CAST($1 AS BIGINT)", (7, "y")), [("y", 7)])
    same("a question mark in a text is text", rows(cur, "SELECT 'really?' AS q, CAST(? AS BIGINT) AS n", (1,)), [("really?", 1)])
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    same("rowcount of a prepared INSERT", insert(cur, f"INSERT INTO {t} VALUES (?, ?, ?)", (1, "a", at)), 1)
    cur.executemany(f"INSERT INTO {t} VALUES ($1, $2, $3)", [(2, "b", at), (3, None, at), (4, "d", None)])
    same("executemany adds up", cur.rowcount, 3)
    same("what was stored", rows(cur, f"SELECT id, name FROM {t} ORDER BY id"), [(1, "a"), (2, "b"), (3, None), (4, "d")])
    same("a parameter typed by its column", rows(cur, f"SELECT name FROM {t} WHERE id = ?", (2,)), [("b",)])
    batch = pa.record_batch({"0": pa.array([4, 1, 9], pa.int64())})
    same("several bound rows, one after the other", rows(cur, f"SELECT id, name FROM {t} WHERE id = $1", batch), [(4, "d"), (1, "a")])
    cur.execute(f"SELECT id FROM {t} WHERE id = ?", (1,))
    first = cur.fetchall()
    cur.execute(f"SELECT id FROM {t} WHERE id = ?", (2,))
    same("the same statement with other values", (first, cur.fetchall()), ([(1,)], [(2,)]))
    cur.executemany(f"INSERT INTO {t} VALUES (?, ?, ?)", [])
    same("executemany of nothing", rows(cur, f"SELECT count(*) FROM {t}"), [(4,)])
    # whatever unit is announced: what is bound counts by its own
    exact = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    for unit, value in (("us", exact), ("ms", exact.replace(microsecond=123000)), ("s", exact.replace(microsecond=0))):
        batch = pa.record_batch({"0": pa.array([value], pa.timestamp(unit, "UTC"))})
        same(f"an instant bound in {unit} is stored as it is", insert(cur, f"INSERT INTO {t} (id, at) VALUES (77, ?)", batch), 1)
        same(f"and found by {unit}", rows(cur, f"SELECT at FROM {t} WHERE at = ?", batch), [(value,)])
    refused("too few values", adbc.AdbcStatusCode.INVALID_ARGUMENT, ["2 parameters"], lambda: cur.execute("SELECT ? + ?", (1,)))
    refused("no values", adbc.AdbcStatusCode.INVALID_ARGUMENT, ["parameter"], lambda: cur.execute(f"SELECT * FROM {t} WHERE id = ?"))
    refused(
        "a value of the wrong type",
        adbc.AdbcStatusCode.INVALID_ARGUMENT,
        ["$1"],
        lambda: cur.execute(f"SELECT * FROM {t} WHERE id = ?", ("no number",)),
    )


def ingest(cur):
    data = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["a", "b", None]})
    args = {"db_schema_name": SCHEMA}
    count = lambda: rows(cur, f"SELECT count(*), sum(id) FROM {SCHEMA}.bulk")[0]
    refused("append to a table that is not there", adbc.AdbcStatusCode.NOT_FOUND, ["bulk"], lambda: cur.adbc_ingest("bulk", data, mode="append", **args))
    same("create", cur.adbc_ingest("bulk", data, mode="create", **args), 3)
    refused("create once more", adbc.AdbcStatusCode.ALREADY_EXISTS, ["bulk"], lambda: cur.adbc_ingest("bulk", data, mode="create", **args))
    same("append", cur.adbc_ingest("bulk", data, mode="append", **args), 3)
    same("rows after append", count(), (6, 12))
    same("create_append", cur.adbc_ingest("bulk", data, mode="create_append", **args), 3)
    same("rows after create_append", count(), (9, 18))
    same("replace", cur.adbc_ingest("bulk", data.slice(0, 1), mode="replace", **args), 1)
    same("rows after replace", count(), (1, 1))
    many = pa.table({"id": pa.array(range(200_000), pa.int64()), "name": pa.array(["n"] * 200_000).dictionary_encode()})
    batches = pa.RecordBatchReader.from_batches(many.schema, many.to_batches(max_chunksize=10_000))
    same("a stream of batches with a dictionary", cur.adbc_ingest("bulk", batches, mode="append", **args), 200_000)
    same("rows after the stream", count()[0], 200_001)
    wrong = pa.table({"other": ["x"]})
    refused("columns that do not fit", adbc.AdbcStatusCode.ALREADY_EXISTS, [], lambda: cur.adbc_ingest("bulk", wrong, mode="append", **args))
    same("and nothing was stored", count()[0], 200_001)
    refused(
        "a temporary table",
        adbc.AdbcStatusCode.INVALID_ARGUMENT,
        ["temporary"],
        lambda: cur.adbc_ingest("bulk", data, mode="append", temporary=True),
    )
    refused(
        "another catalog",
        adbc.AdbcStatusCode.NOT_FOUND,
        ["catalog"],
        lambda: cur.adbc_ingest("bulk", data, mode="append", catalog_name="other", **args),
    )


def features(cur):
    at = [dt.datetime(2026, 1, d, tzinfo=UTC) for d in (1, 2, 3)]
    cur.execute(f"CREATE ENTITY {SCHEMA}.rider KEY (rider_id BIGINT)")
    cur.execute(
        f"CREATE FEATURE VIEW {SCHEMA}.pushed (trips BIGINT, rating DOUBLE) ENTITY {SCHEMA}.rider EVENT TIMESTAMP at ONLINE"
    )
    stamp = pa.timestamp("us", "UTC")
    data = pa.table(
        {"rider_id": pa.array([1, 1, 2], pa.int64()), "at": pa.array(at, stamp), "trips": pa.array([10, 11, 20], pa.int64()), "rating": [4.0, 4.5, None]}
    )
    same("ingest into a push view", cur.adbc_ingest("pushed", data, mode="append", db_schema_name=SCHEMA), 3)
    same("its rows", rows(cur, f"SELECT rider_id, trips FROM {SCHEMA}.pushed ORDER BY trips"), [(1, 10), (1, 11), (2, 20)])
    same("INSERT into a push view", insert(cur, f"INSERT INTO {SCHEMA}.pushed VALUES (3, TIMESTAMP '2026-01-04', 30, 5.0)"), 1)

    cur.execute(f"CREATE TABLE {SCHEMA}.trips (rider_id BIGINT, at TIMESTAMP, cost DOUBLE)")
    cur.executemany(f"INSERT INTO {SCHEMA}.trips VALUES (?, ?, ?)", [(1, at[0], 1.0), (1, at[1], 2.0), (2, at[2], 3.0)])
    cur.execute(
        f"CREATE FEATURE VIEW {SCHEMA}.costs ENTITY {SCHEMA}.rider EVENT TIMESTAMP at ONLINE "
        f"AS SELECT rider_id, at, cost FROM {SCHEMA}.trips"
    )
    cur.execute(f"REFRESH FEATURE VIEW {SCHEMA}.costs")
    columns = [c[0] for c in cur.description]
    got = cur.fetchall()
    same("REFRESH answers one row", len(got), 1)
    same("rows that it wrote", dict(zip(columns, got[0])).get("rows_written"), 3)
    runs = f"SELECT count(*) FROM system.runs WHERE kind ILIKE 'refresh%' AND object LIKE '%{SCHEMA}%costs%'"
    same("it ran exactly once", rows(cur, runs), [(1,)])
    partitions, schema = cur.adbc_execute_partitions(f"REFRESH FEATURE VIEW {SCHEMA}.costs FULL")
    for _ in range(2):
        cur.adbc_read_partition(partitions[0])
        same("redeeming its ticket gives the row", cur.fetch_arrow_table().num_rows, 1)
    same("and runs nothing", rows(cur, runs), [(2,)])
    cur.execute(f"MATERIALIZE FEATURE VIEW {SCHEMA}.costs")
    columns = [c[0] for c in cur.description]
    got = cur.fetchall()
    same("MATERIALIZE answers one row", len(got), 1)
    same("keys that it wrote", dict(zip(columns, got[0])).get("rows_written"), 2)

    cur.execute(f"CREATE FEATURE SERVICE {SCHEMA}.svc AS SELECT c.cost, p.trips FROM {SCHEMA}.costs c, {SCHEMA}.pushed p")
    asked = pa.record_batch({"0": pa.array([2, 1, 9, 2], pa.int64())})
    got = rows(cur, f"SELECT rider_id, cost, trips FROM ONLINE_LOOKUP('{SCHEMA}.svc', $1)", asked)
    same("a prepared lookup of several keys", got, [(2, 3.0, 20), (1, 2.0, 11), (9, None, None), (2, 3.0, 20)])
    labels = f"(VALUES (1, TIMESTAMP '2026-01-02 12:00:00'), (2, TIMESTAMP '2026-01-01')) AS l(rider_id, asked_at)"
    got = rows(cur, f"SELECT l.rider_id, cost FROM {labels} ASOF JOIN {SCHEMA}.costs c AT l.asked_at ORDER BY 1")
    same("a point-in-time join", got, [(1, 2.0), (2, None)])


def metadata(conn, cur):
    info = conn.adbc_get_info()
    same("vendor", info["vendor_name"], "Remige")
    check("vendor version", bool(info.get("vendor_version")), info)
    check("table types", {"TABLE", "VIEW"} <= set(conn.adbc_get_table_types()), conn.adbc_get_table_types())
    cur.execute(f"CREATE TABLE {SCHEMA}.meta_a (id BIGINT, name VARCHAR)")
    cur.execute(f"CREATE VIEW {SCHEMA}.meta_v AS SELECT id FROM {SCHEMA}.meta_a")
    objects = conn.adbc_get_objects(depth="all", db_schema_filter=SCHEMA, table_name_filter="meta_%").read_all().to_pylist()
    same("one catalog", [o["catalog_name"] for o in objects], ["remige"])
    schemas = objects[0]["catalog_db_schemas"]
    same("the schema asked for", [s["db_schema_name"] for s in schemas], [SCHEMA])
    found = {t["table_name"]: t for t in schemas[0]["db_schema_tables"]}
    same("tables and their kinds", {n: t["table_type"] for n, t in found.items()}, {"meta_a": "TABLE", "meta_v": "VIEW"})
    same("columns", [c["column_name"] for c in found["meta_a"]["table_columns"]], ["id", "name"])
    objects = conn.adbc_get_objects(depth="db_schemas").read_all().to_pylist()
    check("all schemas", SCHEMA in [s["db_schema_name"] for s in objects[0]["catalog_db_schemas"]], objects)
    schema = conn.adbc_get_table_schema("meta_a", db_schema_filter=SCHEMA)
    same("schema of a table", [(f.name, f.type) for f in schema], [("id", pa.int64()), ("name", pa.string())])
    refused(
        "schema of a table that is not there",
        adbc.AdbcStatusCode.NOT_FOUND,
        [],
        lambda: conn.adbc_get_table_schema("nowhere", db_schema_filter=SCHEMA),
    )


def errors(cur):
    refused("an unknown table", adbc.AdbcStatusCode.NOT_FOUND, ["nowhere"], lambda: cur.execute("SELECT * FROM nowhere"))
    refused("an unknown table in INSERT", adbc.AdbcStatusCode.NOT_FOUND, ["nowhere"], lambda: cur.execute("INSERT INTO nowhere VALUES (1)"))
    refused("a misspelt keyword", adbc.AdbcStatusCode.INVALID_ARGUMENT, ["line", "^"], lambda: cur.execute("SELECT 1\nFRM x WHERE"))
    refused("an unknown column", adbc.AdbcStatusCode.NOT_FOUND, ["nope"], lambda: cur.execute("SELECT nope FROM (VALUES (1)) AS t(a)"))
    refused("two statements", adbc.AdbcStatusCode.INVALID_ARGUMENT, [], lambda: cur.execute("SELECT 1; SELECT 2"))
    cur.execute(f"CREATE TABLE {SCHEMA}.twice (a BIGINT)")
    refused("an existing table", adbc.AdbcStatusCode.ALREADY_EXISTS, ["twice"], lambda: cur.execute(f"CREATE TABLE {SCHEMA}.twice (a BIGINT)"))
    refused("USE without a session", adbc.AdbcStatusCode.INVALID_ARGUMENT, ["with_cookie_middleware"], lambda: cur.execute(f"USE {SCHEMA}"))

    def overflow():
        cur.execute("SELECT 1 / (v - 7) FROM generate_series(1, 10) AS t(v)")
        cur.fetchall()

    refused("an error while rows flow", adbc.AdbcStatusCode.INVALID_ARGUMENT, ["zero"], overflow)
    same("the connection lives on", rows(cur, "SELECT 1"), [(1,)])


def sessions(address):
    for name, options in [("a cookie", COOKIES), ("a user", {"username": "me", "password": "secret"})]:
        with connect(address, options) as conn, conn.cursor() as cur, connect(address, options) as other, other.cursor() as cur2:
            cur.execute(f"USE {SCHEMA}")
            cur.execute(f"CREATE TABLE mine (a BIGINT)")
            same(f"USE with {name}", rows(cur, f"SELECT count(*) FROM {SCHEMA}.mine"), [(0,)])
            refused("another connection has its own schema", adbc.AdbcStatusCode.NOT_FOUND, ["mine"], lambda: cur2.execute("SELECT * FROM mine"))
            cur.execute("DROP TABLE mine")


def exact(address):
    """Values that change on the way in are refused; what is left out is told where a session is."""
    name, noon = f"{SCHEMA}.exact", dt.datetime(2026, 1, 1, 12, tzinfo=UTC)
    invalid = adbc.AdbcStatusCode.INVALID_ARGUMENT
    args = {"db_schema_name": SCHEMA, "mode": "append"}

    def table(keys, xs):
        instants = pa.array([noon] * len(keys), pa.timestamp("us", "UTC"))
        return pa.table({"id": pa.array(keys), "ts": instants, "x": pa.array(xs)})

    with connect(address, COOKIES) as conn:
        with conn.cursor() as cur:
            cur.execute(f"CREATE ENTITY IF NOT EXISTS exact_{SCHEMA} KEY (id BIGINT)")
            cur.execute(f"CREATE FEATURE VIEW {name} (x BIGINT, l BIGINT[]) ENTITY exact_{SCHEMA} EVENT TIMESTAMP ts")
        with conn.cursor() as cur:
            words = ["column id: 3.9 is no BIGINT", "row id = 3.9, ts = 2026-01-01T12:00:00Z"]
            refused("a float as a key", invalid, words, lambda: cur.adbc_ingest("exact", table([3.0, 3.9], [1, 2]), **args))
        with conn.cursor() as cur:
            words = ["column x: 5.7 is no BIGINT", "row id = 2"]
            refused("a float as a feature", invalid, words, lambda: cur.adbc_ingest("exact", table([1, 2], [5.0, 5.7]), **args))
        with conn.cursor() as cur:
            rows_of = table([1], [1]).append_column("l", pa.array([[1.5]]))
            refused("a list of floats", invalid, ["column l: 1.5 is no BIGINT"], lambda: cur.adbc_ingest("exact", rows_of, **args))
        with conn.cursor() as cur:
            refused("rows without a key", invalid, ["all 2 rows are rejected", "id is NULL"], lambda: cur.adbc_ingest("exact", table([None, None], [1, 2]), **args))
            same("nothing is stored", rows(cur, f"SELECT count(*) FROM {name}"), [(0,)])
        with conn.cursor() as cur:
            same("an ingest without a feature", cur.adbc_ingest("exact", table([7, None], [7.0, 8.0]), **args), 1)
            (level, message), = rows(cur, "SHOW WARNINGS")
            check("SHOW WARNINGS tells what was left out", "1 row(s) rejected: id is NULL (1)" in message and level == "notice", message)
            same("what was left out of the rows is NULL", rows(cur, f"SELECT id, x, l FROM {name}"), [(7, 7, None)])
            insert = f"INSERT INTO {name} (id, ts, x) VALUES (?, ?, ?)"
            refused("a bound float", invalid, ["7.5"], lambda: cur.execute(insert, (8, noon, 7.5)))
            refused("many bound floats", invalid, ["7.5"], lambda: cur.executemany(insert, [(8, noon, 7.0), (9, noon, 7.5)]))
            same("still one row", rows(cur, f"SELECT count(*) FROM {name}"), [(1,)])
    with connect(address) as conn, conn.cursor() as cur:
        refused("SHOW WARNINGS without a session", invalid, ["with_cookie_middleware"], lambda: cur.execute("SHOW WARNINGS"))


def early_end(address):
    with connect(address) as conn:
        for _ in range(100):
            with conn.cursor() as cur:
                cur.execute("SELECT a.v FROM generate_series(1, 100000) AS a(v), generate_series(1, 100000) AS b(v)")
                cur.fetchone()
        with conn.cursor() as cur:
            same("100 results left unread hold no place", rows(cur, "SELECT 1"), [(1,)])


def connect(address, options=None):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cannot disable autocommit")
        return flightsql.connect(address, db_kwargs=options or {})


def main(address, wanted):
    conn = connect(address)
    sections = {
        "session": session,
        "queries": queries,
        "tables": tables,
        "parameters": parameters,
        "ingest": ingest,
        "features": features,
        "metadata": lambda cur: metadata(conn, cur),
        "errors": errors,
        "sessions": lambda _: sessions(address),
        "exact": lambda _: exact(address),
        "early_end": lambda _: early_end(address),
    }
    unknown = set(wanted) - set(sections)
    if unknown:
        sys.exit(f"no section {unknown}; there are {', '.join(sections)}")
    for name, section in sections.items():
        if wanted and name not in wanted and name != "session":
            continue
        print(name, flush=True)
        try:
            # The driver keeps the options of an ingest as long as the cursor lives.
            with conn.cursor() as cur:
                section(cur)
        except Exception:
            traceback.print_exc()
            failures.append(f"{name} broke off")
    try:
        with conn.cursor() as cur:
            cur.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    except adbc.NotSupportedError:
        print(f"  left behind: schema {SCHEMA} (DROP SCHEMA … CASCADE is not built yet)")
    except adbc.Error as e:
        check("DROP SCHEMA … CASCADE", False, str(e))
    conn.close()
    print(f"{len(failures)} failed" if failures else "all held")
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
