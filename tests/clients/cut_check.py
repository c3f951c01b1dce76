#!/usr/bin/env python3
"""Rows that nobody finished sending: streams cut off at random places, by every road. Each statement is stored whole or
not at all, and whole where the client was told so.

    cut_check.py REMIGE [CUTS [SEED]]
"""
import collections
import os
import random
import socket
import sys
import tempfile
import threading
import time

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow as pa

import raw_flight as raw

ROWS = 900
BATCHES = 6


def rows(tag):
    return pa.table({"k": pa.array(range(ROWS), pa.int64()), "ts": pa.array([1_700_000_000_000_000 + i for i in range(ROWS)], pa.timestamp("us", "UTC")),
                     "tag": pa.array([tag] * ROWS, pa.int64()), "text": ["some text to be sent"] * ROWS})


def batched(table):
    return pa.Table.from_batches(table.to_batches(max_chunksize=ROWS // BATCHES))


ROADS = {
    "a push view": lambda tag: (raw.ingest("pushed"), "pushed"),
    "a plain table": lambda tag: (raw.ingest("plain"), "plain"),
    "a table that is made": lambda tag: (raw.ingest(f"made_{tag}", "create"), f"made_{tag}"),
    "a table that is replaced": lambda tag: (raw.ingest("replaced", "replace"), "replaced"),
    "a bound INSERT": None,
    "a bound INSERT into a push view": None,
}


def handle_of(connection, sql):
    request = raw.any_of("ActionCreatePreparedStatementRequest", raw.field(1, sql))
    stream = connection.call("DoAction")
    connection.send(stream, raw.grpc(raw.field(1, "CreatePreparedStatement") + raw.field(2, request)), end=True)
    status, _ = connection.answer(stream)
    assert status == "OK", status
    # gRPC header; Result.body; Any.value; field 1: the handle
    data = connection.answers[stream]["data"][5:]
    return strip(strip(strip(data, 1), 2), 1)


def strip(message, wanted):
    """The bytes of a field."""
    at = 0
    while at < len(message):
        key, at = number(message, at)
        if key & 7 == 0:
            _, at = number(message, at)
            continue
        length, at = number(message, at)
        if key >> 3 == wanted:
            return message[at:at + length]
        at += length
    raise AssertionError(f"no field {wanted}")


def number(message, at):
    out, shift = 0, 0
    while True:
        byte = message[at]
        out, shift, at = out | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return out, at


def finish(connection, stream, rng, how):
    """Ends a call as nobody should. Answers whether the client was told OK."""
    if how == "cancel":
        connection.reset(stream, raw.CANCEL)
    elif how == "reset without error":
        connection.reset(stream, raw.NO_ERROR)
    elif how == "reset":
        connection.reset(stream, rng.choice([raw.INTERNAL, raw.REFUSED]))
    elif how == "goodbye":
        connection.go_away()
        connection.close()
    elif how == "channel closed":
        connection.close()
    elif how == "channel lost":
        connection.abort()
    elif how == "end in the middle":
        connection.send(stream, b"", end=True)
        return connection.answer(stream)[0] == "OK"
    return False


HOWS = ["cancel", "reset without error", "reset", "goodbye", "channel closed", "channel lost", "end in the middle"]


def cut(address, tag, road, rng):
    """One statement that is cut off; answers (whether it was whole, whether the client was told OK, how)."""
    with raw.Connection(address) as connection:
        if ROADS[road]:
            command, _ = ROADS[road](tag)
        else:
            table = "pushed" if "push view" in road else "plain"
            handle = handle_of(connection, f"INSERT INTO {table} (k, ts, tag, text) VALUES (?, ?, ?, ?)")
            command = raw.any_of("CommandPreparedStatementUpdate", raw.field(1, handle))
        sent = b"".join(raw.put_messages(command, batched(rows(tag))))
        whole = rng.random() < 0.1
        place = len(sent) if whole else rng.randrange(len(sent) + 1)
        if not whole and rng.random() < 0.4:
            # at the end of a message, where nothing looks wrong
            ends, at = [], 0
            while at < len(sent):
                at += 5 + int.from_bytes(sent[at + 1:at + 5], "big")
                ends.append(at)
            place = rng.choice(ends)
        headers = [("grpc-timeout", f"{rng.randrange(1, 40)}m")] if rng.random() < 0.15 else []
        stream = connection.call("DoPut", headers)
        if whole:
            connection.send(stream, sent, end=True)
            return True, connection.answer(stream)[0] == "OK", "whole"
        connection.send(stream, sent[:place])
        time.sleep(rng.choice([0, 0, 0.001, 0.01, 0.03]))
        how = rng.choice(HOWS)
        if how == "end in the middle" and place in boundaries(sent):
            how = "cancel"
        return False, finish(connection, stream, rng, how), f"{how} at {place} of {len(sent)}"


def boundaries(sent):
    ends, at = {0}, 0
    while at < len(sent):
        at += 5 + int.from_bytes(sent[at + 1:at + 5], "big")
        ends.add(at)
    return ends


class Proxy:
    """Passes bytes on, and cuts each connection after some."""

    def __init__(self, address, rng):
        self.to, self.rng = address.rsplit("://", 1)[-1].rsplit(":", 1), rng
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"grpc://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            left = self.rng.choice([self.rng.randrange(200, 120_000), 10_000_000])
            server = socket.create_connection((self.to[0], int(self.to[1])))
            threading.Thread(target=self.pass_on, args=(client, server, left), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(server, client, 1 << 60), daemon=True).start()

    @staticmethod
    def pass_on(source, target, left):
        try:
            while left > 0:
                data = source.recv(min(left, 8192))
                if not data:
                    break
                target.sendall(data)
                left -= len(data)
        except OSError:
            pass
        for s in (source, target):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def through_a_proxy(address, tag, rng):
    """An ingest of a real driver, whose connection is cut; answers whether it was told OK."""
    proxy = Proxy(address, rng)
    try:
        with flight_sql.connect(proxy.address) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest(rng.choice(["plain", "pushed"]), batched(rows(tag)).to_reader(), mode="append")
            return True
    except Exception:  # noqa: BLE001 - whatever the driver makes of it
        return False
    finally:
        proxy.listener.close()


def main():
    remige = sys.argv[1]
    cuts = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 30)
    print(f"cut_check: {cuts} cuts, seed {seed}", flush=True)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as tmp:
        server = raw.Server(remige, os.path.join(tmp, "w"))
        told, how = {}, {}
        with flight_sql.connect(server.address, autocommit=True) as connection, connection.cursor() as cursor:
            for sql in ["CREATE ENTITY e KEY (k BIGINT)", "CREATE FEATURE VIEW pushed (tag BIGINT, text VARCHAR) ENTITY e EVENT TIMESTAMP ts",
                        "CREATE TABLE plain (k BIGINT, ts TIMESTAMP, tag BIGINT, text VARCHAR)"]:
                cursor.execute(sql)
            stored = collections.Counter()
            for tag in range(cuts):
                if rng.random() < 0.1:
                    told[tag], how[tag] = through_a_proxy(server.address, tag, rng), "proxy"
                    continue
                road = rng.choice(list(ROADS))
                _, told[tag], how[tag] = cut(server.address, tag, road, rng)
                how[tag] = f"{road}: {how[tag]}"
                assert how[tag].endswith("whole") or not told[tag], f"{how[tag]} was answered OK"
                if "replaced" in road:
                    look(cursor, stored, "replaced", tag)
            settle(cursor)
            for table in ["plain", "pushed"]:
                cursor.execute(f"SELECT tag, count(*) FROM {table} GROUP BY tag")
                stored.update(dict(cursor.fetchall()))
            for tag in range(cuts):
                if "that is made" in how[tag]:
                    look(cursor, stored, f"made_{tag}", tag)
        wrong = [f"{tag} ({how[tag]}): {stored[tag]} rows, told {told[tag]}" for tag in range(cuts)
                 if stored[tag] not in (0, ROWS) or (told[tag] and stored[tag] != ROWS)
                 or (stored[tag] and " at " in how[tag])]
        whole = sum(stored[tag] == ROWS for tag in range(cuts))
        assert not wrong, "\n".join(wrong)
        assert whole > 0 and whole < cuts, f"{whole} of {cuts} stored"
        assert server.end() == 0
    print(f"     {whole} stored whole, {cuts - whole} not at all", flush=True)


def settle(cursor):
    """What still runs for a client that is gone ends soon."""
    before = None
    for _ in range(50):
        cursor.execute("SELECT (SELECT count(*) FROM plain) AS a, (SELECT count(*) FROM pushed) AS b")
        now = cursor.fetchone()
        if now == before:
            return
        before = now
        time.sleep(0.3)


def look(cursor, stored, table, tag):
    try:
        cursor.execute(f"SELECT count(*) FROM {table} WHERE tag = {tag}")
        stored[tag] += cursor.fetchone()[0]
    except Exception as e:  # noqa: BLE001
        assert "does not exist" in str(e), e


if __name__ == "__main__":
    main()
