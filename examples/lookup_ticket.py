#!/usr/bin/env python3
"""A lookup in one round trip: DoGet with a ticket that names the service and carries the keys.

    remige serve -w my-warehouse &                       # prints: remige ready grpc://127.0.0.1:8815
    pip install pyarrow adbc-driver-flightsql adbc-driver-manager
    python examples/lookup_ticket.py grpc://127.0.0.1:8815

Copy `lookup_ticket` into your own code; it needs pyarrow and nothing else. A ticket answers what

    SELECT * FROM ONLINE_LOOKUP('name', (rows), status => …, at => …)

answers, one row per row of `keys`, in that order. It may be built anywhere and used more than once.
"""
import sys

import pyarrow as pa
import pyarrow.flight as flight

TYPE = b"type.googleapis.com/remige.v1.OnlineLookup"


def _varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _bytes(tag, value):
    return _varint(tag << 3 | 2) + _varint(len(value)) + value


def lookup_ticket(name: str, keys: pa.RecordBatch, *, status=False, at=None, schema="") -> bytes:
    """The bytes of a ticket.

    name    feature view or service; with or without its schema
    keys    pyarrow.RecordBatch: a column per key and per request column, by name, in any order
    status  also answer each view's status (PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE) and event timestamp
    at      judge the age of rows at this instant (a datetime with a time zone, or microseconds UTC) instead of now
    schema  what a name without a schema belongs to; empty: the session's schema
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, keys.schema) as stream:
        stream.write_batch(keys)
    message = _bytes(1, name.encode()) + _bytes(2, sink.getvalue().to_pybytes())
    if status:
        message += _varint(3 << 3) + _varint(1)
    if at is not None:
        if not isinstance(at, int):
            if at.tzinfo is None:
                raise ValueError("at has no time zone")
            at = pa.scalar(at, pa.timestamp("us", "UTC")).value
        message += _varint(4 << 3) + _varint(at)
    if schema:
        message += _bytes(5, schema.encode())
    return _bytes(1, TYPE) + _bytes(2, message)


def lookup_partition(name: str, keys: pa.RecordBatch, **options) -> bytes:
    """The same for ADBC's `adbc_read_partition`: a FlightInfo with one endpoint that holds the ticket."""
    ticket = _bytes(1, lookup_ticket(name, keys, **options))
    return _bytes(3, _bytes(1, ticket))


SETUP = ["CREATE ENTITY IF NOT EXISTS ticket_rider KEY (rider_id BIGINT)",
         "CREATE FEATURE VIEW IF NOT EXISTS ticket_rides (rides BIGINT, rating DOUBLE)"
         " ENTITY ticket_rider EVENT TIMESTAMP counted_at AT TIME ZONE 'UTC' ONLINE",
         "INSERT INTO ticket_rides VALUES (1, TIMESTAMP '2026-01-10 00:00:00', 12, 4.5), (2, TIMESTAMP '2026-01-11 00:00:00', 3, NULL)"]


def main(address):
    import adbc_driver_flightsql.dbapi as flight_sql

    keys = pa.record_batch({"rider_id": pa.array([2, 1, 7], pa.int64())})
    with flight_sql.connect(address) as connection, connection.cursor() as cursor:
        for sql in SETUP:
            cursor.execute(sql)
        cursor.adbc_read_partition(lookup_partition("ticket_rides", keys, status=True))
        by_adbc = cursor.fetch_arrow_table()

    # pyarrow keeps one HTTP/2 connection open: make the client once and share it between threads
    with flight.connect(address.replace("grpc://", "grpc+tcp://", 1)) as client:
        ticket = flight.Ticket(lookup_ticket("ticket_rides", keys, status=True))
        deadline = flight.FlightCallOptions(timeout=0.5)  # seconds
        by_flight = client.do_get(ticket, deadline).read_all()
        try:
            client.do_get(flight.Ticket(lookup_ticket("ticket_walks", keys)), deadline).read_all()
        except pa.ArrowKeyError as error:  # NOT_FOUND
            print("a name that does not exist:", str(error).splitlines()[0])

    for row in by_flight.to_pylist():
        print(row)
    assert by_adbc.equals(by_flight), (by_adbc, by_flight)
    found = by_flight.to_pydict()
    assert found["rider_id"] == [2, 1, 7] and found["rides"] == [3, 12, None] and found["rating"] == [None, 4.5, None], found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
