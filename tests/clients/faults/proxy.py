"""A TCP proxy that does to a connection what networks do: it is slow, it falls silent, it breaks off."""
import socket
import threading
import time

CHUNK = 1 << 16


class Proxy:
    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        # Seconds that every piece of data waits.
        self.delay = 0.0
        self.flows = threading.Event()
        self.flows.set()
        # Bytes from clients so far; before the one after `strike_at` arrives, `strike` is called. If it answers
        # True the connection breaks there.
        self.sent = 0
        self.strike_at = None
        self.strike = None
        # The same before the first data with these bytes in it.
        self.strike_on = None
        # Bytes of the store's answers that may pass, then the connection breaks.
        self.answers_left = None
        self.lock = threading.Lock()
        self.open = set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                store = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for s in (client, store):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.open |= {client, store}
            threading.Thread(target=self.pump, args=(client, store, self.asked), daemon=True).start()
            threading.Thread(target=self.pump, args=(store, client, self.answered), daemon=True).start()

    def pump(self, source, sink, look):
        try:
            while data := source.recv(CHUNK):
                self.flows.wait()
                if self.delay:
                    time.sleep(self.delay)
                data, then, rest = look(data)
                if data:
                    sink.sendall(data)
                if then and then():
                    break
                if rest:
                    sink.sendall(rest)
        except OSError:
            pass
        self.break_off(source, sink)

    def asked(self, data):
        with self.lock:
            if self.strike_on is not None and self.strike_on in data:
                self.strike_on = None
                return b"", self.strike, data
            left = None if self.strike_at is None else self.strike_at - self.sent
            if left is None or left > len(data):
                self.sent += len(data)
                return data, None, b""
            self.sent += len(data)
            self.strike_at = None
            return data[:left], self.strike, data[left:]

    def answered(self, data):
        with self.lock:
            if self.answers_left is None or self.answers_left > len(data):
                if self.answers_left is not None:
                    self.answers_left -= len(data)
                return data, None, b""
            left, self.answers_left = self.answers_left, None
            return data[:left], lambda: True, b""

    def strike_after(self, count, strike):
        """Calls `strike` once, when clients have sent so many more bytes."""
        with self.lock:
            self.strike_at, self.strike = self.sent + count, strike

    def strike_before(self, words, strike):
        with self.lock:
            self.strike_on, self.strike = words, strike

    def break_off(self, *sockets):
        with self.lock:
            self.open -= set(sockets)
        for s in sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def stop(self):
        self.listener.close()
        self.flows.set()
        self.break_off(*list(self.open))
