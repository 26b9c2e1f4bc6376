"""A wire between a client and a server that breaks when the server says something certain."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Wire:
    """Takes connections at `port`; the one on which the server says `cut_at` breaks before that arrives."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.cut_at: bytes | None = None
        self.cuts = 0
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [near, far]
            for pair in ((near, far, False), (far, near, True)):
                self._threads.append(threading.Thread(target=self._pump, args=pair, daemon=True))
                self._threads[-1].start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if answers and self.cut_at is not None and self.cut_at in data:
                    self.cut_at = None
                    self.cuts += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            _hang_up(end)

    def close(self) -> None:
        _hang_up(self._server)
        self._server.close()
        for end in self._ends:
            _hang_up(end)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def between(target: int) -> Iterator[Wire]:
    """A wire to a port of 127.0.0.1."""
    wire = Wire(target)
    try:
        yield wire
    finally:
        wire.close()
