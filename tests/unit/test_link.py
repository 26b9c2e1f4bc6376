"""The link that tests break does what a broken network does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fakes.link import Link, Weather

PATIENCE_S = 10.0
End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[Link]:
    """A link to a server that says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Link(server.sockets[0].getsockname()[:2]) as link:
        yield link


@contextlib.asynccontextmanager
async def over(link: Link) -> AsyncIterator[End]:
    reader, writer = await asyncio.open_connection(link.host, link.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def said_back(end: End, data: bytes) -> bytes:
    end[1].write(data)
    return await asyncio.wait_for(end[0].readexactly(len(data)), PATIENCE_S)


async def ended(end: End) -> None:
    """Wait until a connection was reset."""
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(end[0].read(), PATIENCE_S)


async def test_a_link_carries_both_ways() -> None:
    async with echoing() as link, over(link) as end:
        assert await said_back(end, b"x" * 100_000) == b"x" * 100_000
        assert link.carried >= 200_000


async def test_a_cut_resets_and_refuses_until_the_link_is_restored() -> None:
    async with echoing() as link:
        async with over(link) as end:
            assert await said_back(end, b"hello") == b"hello"
            link.cut()
            await ended(end)
        with pytest.raises(ConnectionRefusedError):
            async with over(link):
                pytest.fail("a link that is cut lets nobody in")
        await link.restore()
        async with over(link) as end:
            assert await said_back(end, b"again") == b"again"


async def test_silence_swallows_and_breaks_what_has_lost_bytes_in_the_end() -> None:
    async with echoing() as link, over(link) as end, over(link) as idle:
        assert await said_back(end, b"hello") == b"hello"
        assert await said_back(idle, b"hello") == b"hello"
        link.silence()
        end[1].write(b"lost")
        await asyncio.wait_for(link.swallowed.wait(), PATIENCE_S)
        await link.restore()
        await ended(end)
        assert await said_back(idle, b"still there") == b"still there"


async def test_a_stall_holds_back_and_loses_nothing() -> None:
    async with echoing() as link, over(link) as end:
        link.stall()
        asking = asyncio.create_task(said_back(end, b"late"))
        await asyncio.sleep(0)
        assert not asking.done()
        await link.restore()
        assert await asking == b"late"


async def test_a_slow_link_takes_its_time() -> None:
    async with echoing() as link, over(link) as end:
        link.slow(Weather(latency_s=0.05, bytes_per_s=1_000_000))
        began = asyncio.get_running_loop().time()
        await said_back(end, b"x" * 100_000)
        # Twice the latency; and the last byte leaves a tenth of a second after the first one.
        assert asyncio.get_running_loop().time() - began >= 0.2


async def test_a_lost_packet_delays_what_is_behind_it() -> None:
    async with echoing() as link, over(link) as end:
        link.slow(Weather(loss=1.0, timeout_s=0.1))
        began = asyncio.get_running_loop().time()
        assert await said_back(end, b"resent") == b"resent"
        assert asyncio.get_running_loop().time() - began >= 0.2
