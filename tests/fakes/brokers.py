"""Brokers for tests: the embedded one, a real Mosquitto, and a relay in front of either that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from resonator.bus.url import parse_broker_url
from resonator_hub.broker import EmbeddedBroker

START_S = 20.0


def find_mosquitto() -> str:
    """Return the path of Mosquitto; skips the test where there is none, but fails it in CI."""
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        reason = "mosquitto is not installed (Debian: apt install mosquitto)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A Mosquitto of our own on a free port of 127.0.0.1; it may be stopped and started again."""

    def __init__(self, directory: Path) -> None:
        self._program = find_mosquitto()
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start and wait until it listens; another port when somebody was faster, the same at a restart."""
        for _ in range(5):
            port = self.port or free_port()
            if await self._listen(port):
                self.port = port
                return
        pytest.fail("mosquitto did not start on five free ports")

    async def _listen(self, port: int) -> bool:
        config = self._directory / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
            "max_queued_messages 0\npersistence false\nlog_dest stderr\nlog_type all\n"
        )
        self._process = await asyncio.create_subprocess_exec(
            self._program,
            "-c",
            str(config),
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stderr is not None
        while line := await asyncio.wait_for(self._process.stderr.readline(), START_S):
            if b"running" in line:
                # Nobody may block on a full pipe.
                self._drain = asyncio.create_task(self._process.stderr.read())
                return True
        await self._process.wait()
        return False

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it (SIGSTOP) for the length of a block."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()
        if self._drain is not None:
            await self._drain
        self._process = None


@contextlib.asynccontextmanager
async def mosquitto() -> AsyncIterator[Mosquitto]:
    """A running Mosquitto; `.url` is where it listens."""
    with tempfile.TemporaryDirectory(prefix="mosquitto-") as directory:
        server = Mosquitto(Path(directory))
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[EmbeddedBroker]:
    """A running embedded broker; `.url` is where it listens."""
    server = EmbeddedBroker()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Relay:
    """A TCP relay in front of a broker: cutting it is what a broken network does."""

    def __init__(self, target_url: str) -> None:
        self._target = parse_broker_url(target_url)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._pumps)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break every connection abruptly, to both sides."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            pump = asyncio.create_task(_pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()
    with contextlib.suppress(ConnectionError):
        await sink.wait_closed()
