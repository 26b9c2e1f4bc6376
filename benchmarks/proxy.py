"""A TCP proxy that delays what goes through it, each way by the same time, and limits no throughput.

`python proxy.py HOST:PORT TO_HOST:TO_PORT MILLISECONDS` listens until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fleets import HUB_CORE, on

_CHUNK = 1 << 18
_Reader = asyncio.StreamReader
_Writer = asyncio.StreamWriter


@contextmanager
def delayed(listen: tuple[str, int], to: tuple[str, int], delay_ms: float) -> Iterator[None]:
    """Run a proxy on the hub's core: `delay_ms` each way, so a round trip takes twice as long."""
    ends = [f"{host}:{port}" for host, port in (listen, to)]
    command = on(HUB_CORE, [sys.executable, __file__, *ends, str(delay_ms)])
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()  # it listens
        yield
    finally:
        process.kill()
        process.wait()


async def serve(listen: tuple[str, int], to: tuple[str, int], delay_s: float) -> None:
    """Accept connections for ever, and join each to one of its own at `to`."""
    server = await asyncio.start_server(functools.partial(_join, to, delay_s), *listen)
    print("listening", flush=True)
    await server.serve_forever()


async def _join(to: tuple[str, int], delay_s: float, reader: _Reader, writer: _Writer) -> None:
    try:
        there, back = await asyncio.open_connection(*to)
    except OSError:
        writer.close()
        return
    for one in (writer, back):
        # Small messages must not wait for the acknowledgement of the one before: that is no latency of ours.
        one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await asyncio.gather(_pass_on(reader, back, delay_s), _pass_on(there, writer, delay_s))


async def _pass_on(reader: _Reader, writer: _Writer, delay_s: float) -> None:
    """Write what is read when its time has come; any number of bytes may be under way."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    writing = asyncio.ensure_future(_write_when_due(under_way, writer))
    data = b"-"
    while data:
        try:
            data = await reader.read(_CHUNK)
        except ConnectionError:
            data = b""
        under_way.put_nowait((loop.time() + delay_s, data))
    await writing


async def _write_when_due(under_way: asyncio.Queue[tuple[float, bytes]], writer: _Writer) -> None:
    """Write until an empty piece says that the other side has hung up."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
    writer.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    asyncio.run(serve(_address(sys.argv[1]), _address(sys.argv[2]), float(sys.argv[3]) / 1e3))
