"""A Flight SQL client that can do what none should: stop in the middle, send what it likes, and read nothing.

HTTP/2 frames are written by hand (RFC 9113; headers without compression, RFC 7541)."""
import atexit
import os
import select
import socket
import struct
import subprocess
import time

import pyarrow as pa

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
NO_ERROR, INTERNAL, REFUSED, CANCEL = 0, 2, 7, 8
SQL = "type.googleapis.com/arrow.flight.protocol.sql."
CODES = {"0": "OK", "1": "CANCELLED", "3": "INVALID_ARGUMENT", "4": "DEADLINE_EXCEEDED", "6": "ALREADY_EXISTS",
         "8": "RESOURCE_EXHAUSTED", "12": "UNIMPLEMENTED", "13": "INTERNAL", "14": "UNAVAILABLE"}


def varint(n):
    out = b""
    while n > 0x7F:
        out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
    return out + bytes([n])


def field(number, value):
    """A field of a protobuf message: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def any_of(name, value):
    return field(1, SQL + name) + field(2, value)


def ingest(table, mode="append"):
    missing, exists = {"create": (1, 1), "append": (2, 2), "replace": (1, 3), "create_append": (1, 2)}[mode]
    return any_of("CommandStatementIngest", field(1, field(1, missing) + field(2, exists)) + field(2, table))


def update(sql):
    return any_of("CommandStatementUpdate", field(1, sql))


def descriptor(command):
    return field(1, 2) + field(2, command)


def flight_data(command=None, header=b"", body=b""):
    out = field(1, descriptor(command)) if command is not None else b""
    return out + (field(2, header) if header else b"") + (field(1000, body) if body else b"")


def ipc_messages(table, options=None):
    """(header, body) of the schema and of each batch."""
    sink = pa.BufferOutputStream()
    schema = table.schema
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for batch in table.to_batches() if isinstance(table, pa.Table) else [table]:
            writer.write_batch(batch)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    out = []
    while True:
        try:
            message = reader.read_next_message()
        except (StopIteration, EOFError):
            return out
        if message is None:
            return out
        body = message.body.to_pybytes() if message.body is not None else b""
        out.append((message.metadata.to_pybytes(), body))


def grpc(message):
    return b"\0" + struct.pack(">I", len(message)) + message


def put_messages(command, table, options=None):
    """The gRPC messages of a DoPut."""
    first, *rest = ipc_messages(table, options)
    return [grpc(flight_data(command, *first))] + [grpc(flight_data(None, *m)) for m in rest]


class Closed(Exception):
    pass


class Connection:
    def __init__(self, address, timeout=20, greet=True):
        host, port = address.rsplit("://", 1)[-1].rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.next, self.window, self.windows = b"", 1, 65535, {}
        self.initial, self.answers, self.gone = 65535, {}, None
        if greet:
            self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 0)))  # no table of headers

    @staticmethod
    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def send_frame(self, kind, flags, stream, payload=b""):
        self.socket.sendall(self.frame(kind, flags, stream, payload))

    def call(self, method, headers=()):
        stream, self.next = self.next, self.next + 2
        self.windows[stream], self.answers[stream] = self.initial, {"headers": b"", "data": b"", "end": False, "reset": None}
        pairs = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), ("te", "trailers"), ("content-type", "application/grpc"),
                 (":path", f"/arrow.flight.protocol.FlightService/{method}"), *headers]
        pairs.sort(key=lambda p: not p[0].startswith(":"))
        block = b"".join(b"\x10" + bytes([len(k)]) + k.encode() + self.length(len(v)) + v.encode() for k, v in pairs)
        self.send_frame(HEADERS, END_HEADERS, stream, block)
        return stream

    @staticmethod
    def length(n):
        return bytes([n]) if n < 127 else b"\x7f" + varint(n - 127)

    def send(self, stream, data, end=False):
        """Sends as the windows allow."""
        view = memoryview(data)
        answer = self.answers[stream]
        over = lambda: answer["end"] or answer["reset"] is not None  # noqa: E731
        while view:
            while min(self.window, self.windows[stream]) <= 0 and not over():
                self.read()
            if over():
                return
            n = min(len(view), 16384, self.window, self.windows[stream])
            last = n == len(view) and end
            self.send_frame(DATA, END_STREAM if last else 0, stream, bytes(view[:n]))
            self.window, self.windows[stream] = self.window - n, self.windows[stream] - n
            view = view[n:]
            if self.buffer or select.select([self.socket], [], [], 0)[0]:
                self.read()
        if end and not len(data):
            self.send_frame(DATA, END_STREAM, stream)

    def exactly(self, n):
        while len(self.buffer) < n:
            got = self.socket.recv(1 << 16)
            if not got:
                raise Closed(self.gone or "closed")
            self.buffer += got
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def read(self):
        head = self.exactly(9)
        length, kind, flags = struct.unpack(">I", b"\0" + head[:3])[0], head[3], head[4]
        stream = struct.unpack(">I", head[5:])[0] & 0x7FFFFFFF
        payload = self.exactly(length)
        answer = self.answers.get(stream)
        if kind == SETTINGS and not flags & ACK:
            for i in range(0, length, 6):
                name, value = struct.unpack(">HI", payload[i:i + 6])
                if name == 4:
                    for s in self.windows:
                        self.windows[s] += value - self.initial
                    self.initial = value
            self.send_frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self.send_frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            more = struct.unpack(">I", payload)[0]
            if stream:
                self.windows[stream] = self.windows.get(stream, 0) + more
            else:
                self.window += more
        elif kind == GOAWAY:
            self.gone = payload[8:].decode(errors="replace")
        elif answer is not None and kind in (DATA, HEADERS, RST_STREAM):
            if kind == RST_STREAM:
                answer["reset"] = struct.unpack(">I", payload)[0]
            else:
                answer["data" if kind == DATA else "headers"] += payload
                answer["end"] = answer["end"] or bool(flags & END_STREAM)

    def answer(self, stream, seconds=20):
        """The status as a word, and what else the trailers say; waits for it."""
        until = time.monotonic() + seconds
        answer = self.answers[stream]
        while not answer["end"] and answer["reset"] is None:
            left = until - time.monotonic()
            if left <= 0 or (not self.buffer and not select.select([self.socket], [], [], left)[0]):
                return "NO ANSWER", ""
            self.read()
        headers = answer["headers"]
        at = headers.rfind(STATUS)
        at = at + len(STATUS) if at >= 0 else -1
        if at < 0:
            return f"RESET {answer['reset']}", ""
        size = headers[at] & 0x7F
        text = headers[at + 1:at + 1 + size]
        text = unhuffman(text) if headers[at] & 0x80 else text.decode()
        return CODES.get(text, text), headers

    def reset(self, stream, code):
        self.send_frame(RST_STREAM, 0, stream, struct.pack(">I", code))

    def go_away(self):
        self.send_frame(GOAWAY, 0, 0, struct.pack(">II", 0, NO_ERROR))

    def abort(self):
        """Closes so that the other side sees a reset of TCP."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# `grpc-status` as h2 writes it, Huffman coded.
STATUS = bytes.fromhex("9acac8b21234da8f")
DIGITS = {"00000": "0", "00001": "1", "00010": "2", "011001": "3", "011010": "4", "011011": "5", "011100": "6", "011101": "7",
          "011110": "8", "011111": "9"}


def unhuffman(data):
    """Digits in the Huffman code of HPACK."""
    bits, out = "".join(f"{b:08b}" for b in data), ""
    while bits:
        n = next((n for n in (5, 6) if bits[:n] in DIGITS), None)
        if n is None:
            return out
        out, bits = out + DIGITS[bits[:n]], bits[n:]
    return out


class Server:
    """`remige serve` as a child."""

    def __init__(self, remige, warehouse, *flags):
        self.log = open(os.path.join(os.path.dirname(warehouse), "serve.err"), "ab")
        command = [remige, "serve", "-w", warehouse, "--listen", "127.0.0.1:0", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        atexit.register(self.process.kill)
        line = self.process.stdout.readline()
        assert line.startswith("remige ready "), f"the server did not become ready: {line!r}"
        self.address = line.split()[-1]

    def resident(self):
        """The most bytes that were ever resident."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    def alive(self):
        return self.process.poll() is None

    def end(self):
        self.process.terminate()
        code = self.process.wait(timeout=60)
        self.log.close()
        return code
