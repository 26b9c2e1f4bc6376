"""What the agent and its profiler process say to each other: msgpack maps behind a length of four bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import msgpack

MAX_FRAME = 1 << 20
_LENGTH = struct.Struct(">I")


def frame(message: dict[str, Any]) -> bytes:
    """Write one message."""
    body: bytes = msgpack.packb(message)
    return _LENGTH.pack(len(body)) + body


async def read(stream: asyncio.StreamReader) -> dict[str, Any]:
    """Read one message; raises EOFError when the other side is gone or does not keep to the protocol."""
    try:
        length = _length(await stream.readexactly(_LENGTH.size))
        return _map(await stream.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError(str(error)) from error


def read_blocking(sock: socket.socket) -> dict[str, Any]:
    """Read one message as `read` does."""
    return _map(_exactly(sock, _length(_exactly(sock, _LENGTH.size))))


def _length(head: bytes) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise EOFError(f"a frame of {length} bytes")
    return int(length)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError("the agent is gone")
        data += piece
    return data


def _map(body: bytes) -> dict[str, Any]:
    try:
        message = msgpack.unpackb(body)
    except ValueError as error:
        raise EOFError(f"a frame that is not msgpack: {error}") from error
    if not isinstance(message, dict):
        raise EOFError(f"a {type(message).__name__} instead of a map")
    return message
