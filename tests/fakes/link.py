"""A link between two brokers that is in a test's hands: cut, gone silent, slow, and whole again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

CHUNK = 16 * 1024
MOST_UNDER_WAY = 256 * 1024
"""How many bytes a link holds one way before it takes no more, as a router's queue does."""


@dataclass(frozen=True)
class Weather:
    """How slow a link is; by default it is not.

    Latency and jitter are one way, in seconds. A chunk that is lost, with the probability `loss`, is sent
    again by TCP: it and all behind it come `timeout_s` later.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    timeout_s: float = 0.3
    bytes_per_s: float = float("inf")


FAIR = Weather()
DSL = Weather(latency_s=0.05, jitter_s=0.02, loss=0.01, bytes_per_s=125_000)
"""1 Mbit/s, a tenth of a second there and back, now and then a lost packet."""


class Link:
    """A TCP relay from an address of ours to a broker's.

    `cut()` breaks every connection and refuses new ones; `silence()` has bytes vanish without a word, which
    either end notices by its keepalive only; `stall()` holds them back; `slow()` is bad weather; `restore()`
    ends them all. A connection that has lost bytes breaks at `restore()`: what follows would not fit.
    """

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1", *, seed: int = 0) -> None:
        self.weather = FAIR
        self.carried = 0
        """Bytes that have arrived, both ways."""
        self.passing = asyncio.Event()
        self.swallowing = False
        self.swallowed = asyncio.Event()
        """Set when a silence has swallowed something."""
        self.random = random.Random(seed)
        self.passing.set()
        self._target, self._host, self._port = target, host, 0
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> str:
        """Where one end of it is; the other is the target."""
        return self._host

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"mqtt://{self._host}:{self._port}"

    async def __aenter__(self) -> Link:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self.passing.set()
        await asyncio.gather(*self._serving)

    def cut(self) -> None:
        """Break every connection abruptly, to both sides, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.abort()

    def silence(self) -> None:
        """Have everything vanish from now on, what is under way included, as behind a pulled cable."""
        self.swallowing = True
        self.swallowed.clear()

    def stall(self) -> None:
        """Hold everything back, and let it through at `restore()`, late."""
        self.passing.clear()

    def slow(self, weather: Weather = DSL) -> None:
        """Change the weather for what is sent from now on."""
        self.weather = weather

    async def restore(self) -> None:
        """Carry everything again, at once."""
        self.weather, self.swallowing = FAIR, False
        self.passing.set()
        for connection in self._connections:
            if connection.has_lost:
                connection.abort()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:  # the broker is down: as refused as it can be at this point
            _reset(writer)
            return
        connection = _Connection(self, (reader, writer), (far_reader, far_writer))
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """One connection over a link, both ways."""

    def __init__(self, link: Link, near: _End, far: _End) -> None:
        self.has_lost = False
        self._link = link
        self._near, self._far = near, far

    def abort(self) -> None:
        for _, writer in (self._near, self._far):
            _reset(writer)

    def _lose(self) -> None:
        self.has_lost = True
        self._link.swallowed.set()

    async def run(self) -> None:
        """Carry bytes both ways until both ends are through, or one has broken."""
        ways = [
            asyncio.ensure_future(self._carry(self._near[0], self._far[1])),
            asyncio.ensure_future(self._carry(self._far[0], self._near[1])),
        ]
        await asyncio.wait(ways)
        self.abort()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        way = _Way(self._link)
        taking = asyncio.ensure_future(self._take(source, way))
        try:
            async for data in way.arriving():
                if self._link.swallowing:
                    self._lose()
                    continue
                sink.write(data)
                await sink.drain()
                self._link.carried += len(data)
            if not self.has_lost:
                sink.write_eof()
        except OSError:
            self.abort()
        finally:
            taking.cancel()
            await asyncio.wait({taking})

    async def _take(self, source: asyncio.StreamReader, way: _Way) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(CHUNK):
                await way.send(data)
        if self._link.swallowing:
            self._lose()  # the goodbye, for one
        way.end()


class _Way:
    """Bytes under way in one direction: they arrive in order, each when the weather has it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._free_at = 0.0
        """When the last byte so far has left the sender."""
        self._last_at = 0.0
        self._ended = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def send(self, data: bytes) -> None:
        """Put bytes on their way; wait while there is no room for more."""
        weather, now = self._link.weather, asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + len(data) / weather.bytes_per_s
        late = weather.latency_s + self._link.random.uniform(0.0, weather.jitter_s)
        if self._link.random.random() < weather.loss:
            late += weather.timeout_s
        self._last_at = max(self._last_at, self._free_at + late)
        self._under_way.append((self._last_at, data))
        self._size += len(data)
        self._news.set()
        while self._size > MOST_UNDER_WAY:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        """Nothing more is sent."""
        self._ended = True
        self._news.set()

    async def arriving(self) -> AsyncIterator[bytes]:
        """Yield the bytes when they are there, until the end."""
        while True:
            while not self._under_way and not self._ended:
                self._news.clear()
                await self._news.wait()
            if not self._under_way:
                return
            at, data = self._under_way[0]
            await _until(at)
            await self._link.passing.wait()
            self._under_way.popleft()
            self._size -= len(data)
            self._room.set()
            yield data


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset, without a goodbye."""
    if not writer.transport.is_closing():
        end: socket.socket = writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _until(at: float) -> None:
    """Return at a time of the loop's clock."""
    loop = asyncio.get_running_loop()
    if at > loop.time():
        there = asyncio.Event()
        timer = loop.call_at(at, there.set)
        try:
            await there.wait()
        finally:
            timer.cancel()
