"""A small HTTP server for probes and for Prometheus: three pages, nothing to say to it but GET."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address

import structlog

from resonator.errors import InputInvalid

log = structlog.get_logger(__name__)
PATIENCE_S = 5.0
"""How long a request may take to come in, and its answer to go out."""
MAX_REQUEST = 8192
AT_ONCE = 32
"""Connections beyond these are closed: a probe comes again."""


@dataclass(frozen=True)
class Page:
    """An answer."""

    status: HTTPStatus
    kind: str
    body: bytes

    @classmethod
    def json(cls, status: HTTPStatus, value: object) -> Page:
        """Make an answer of a JSON value."""
        return cls(status, "application/json", json.dumps(value).encode() + b"\n")

    def encoded(self, *, bare: bool) -> bytes:
        """Return the response; `bare` leaves out the body, as HEAD asks."""
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.kind}\r\n"
            f"Content-Length: {len(self.body)}\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n"
        )
        return head.encode() + (b"" if bare else self.body)


class Endpoint:
    """Serves `pages`, by their paths, to whoever connects."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]]) -> None:
        self._pages = pages
        self._open: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def opened(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen while the block runs; gives the port. Raises InputInvalid where that is not possible."""
        try:
            server = await asyncio.start_server(self._accept, host, port, limit=MAX_REQUEST)
        except OSError as error:
            raise InputInvalid(f"status: nothing can listen at {host}:{port}: {error.strerror}") from None
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection is served by a task"
        try:
            if len(self._open) < AT_ONCE:
                self._open.add(task)
                await asyncio.wait_for(self._serve(reader, writer), PATIENCE_S)
        except (OSError, ValueError, EOFError, asyncio.TimeoutError, asyncio.CancelledError):
            pass  # whoever it was does not speak HTTP, or does not wait for the answer
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0].decode("ascii", "replace")
        writer.write(self._answer(method, path).encoded(bare=method == b"HEAD"))
        await writer.drain()

    def _answer(self, method: bytes, path: str) -> Page:
        page = self._pages.get(path)
        if page is None:
            known = ", ".join(sorted(self._pages))
            return Page.json(HTTPStatus.NOT_FOUND, {"error": f"there are {known}"})
        if method not in {b"GET", b"HEAD"}:
            return Page.json(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "GET is all there is"})
        try:
            return page()
        except Exception:
            log.exception("a status page could not be made", path=path)
            return Page.json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "see the log"})


def alive() -> Page:
    """Answer: whoever can do that has an event loop that turns."""
    return Page.json(HTTPStatus.OK, {"alive": True})


def parse_address(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`, an IPv6 address in brackets, or a port of 127.0.0.1 alone; raises InputInvalid."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise InputInvalid(f"status {text!r} is not an address such as 127.0.0.1:9464, or a port")
    return host.strip("[]") or "127.0.0.1", int(port)


def is_loopback(host: str) -> bool:
    """Whether nobody on another machine can connect."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
