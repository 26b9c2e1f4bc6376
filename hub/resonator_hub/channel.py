"""Messages of plain data between the hub and its workers, of any size, over a pair of sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import msgpack

from resonator.errors import ResonatorError

MAX_BODY_BYTES = 16 * 2**20
"""How large an outcome may be without its long byte strings: read, it takes up to 64 times as much memory."""
MAX_PIECES = 2**16
LONG = 4096
"""Byte strings from this length on travel beside the body, so that they are not copied into it."""
_PIECE = 1
_COUNT, _SIZE, _INDEX = struct.Struct("!I"), struct.Struct("!Q"), struct.Struct("!I")


class Garbled(ResonatorError):
    """What came through a channel is no call, or no outcome of the call that was made."""


def send(channel: socket.socket, message: Any) -> None:
    """Send one message of plain data; byte strings may have any length."""
    pieces: list[bytes] = []

    def beside(data: bytes) -> msgpack.ExtType:
        pieces.append(data)
        return msgpack.ExtType(_PIECE, _INDEX.pack(len(pieces) - 1))

    body = msgpack.packb(apart(message, beside))
    sizes = [_SIZE.pack(len(part)) for part in (body, *pieces)]
    channel.sendall(b"".join([_COUNT.pack(len(pieces)), *sizes, body]))
    for piece in pieces:
        channel.sendall(piece)


def receive(channel: socket.socket, most: int | None = None) -> Any:
    """Return the next message. Raises EOFError when the other side is gone.

    With `most`, a number of bytes, the sender is not trusted: Garbled is raised before more is read.
    """
    (count,) = _COUNT.unpack(_exactly(channel, _COUNT.size))
    if most is not None and count > MAX_PIECES:
        raise Garbled(f"a message of {count} pieces; at most {MAX_PIECES} are accepted")
    sizes = [size for (size,) in _SIZE.iter_unpack(_exactly(channel, _SIZE.size * (count + 1)))]
    if most is not None and (sizes[0] > MAX_BODY_BYTES or sum(sizes) > most):
        raise Garbled(f"a message of {sizes[0]} and {sum(sizes[1:])} bytes is too large")
    body, *pieces = (_exactly(channel, size) for size in sizes)

    def piece(code: int, data: bytes) -> bytes:
        if code != _PIECE:
            raise ValueError(code)
        index: int = _INDEX.unpack(data)[0]
        return pieces[index]

    try:
        return msgpack.unpackb(body, use_list=False, ext_hook=piece)
    except (ValueError, IndexError, struct.error, RecursionError, msgpack.UnpackException) as error:
        raise Garbled("a message is not msgpack") from error


def _exactly(channel: socket.socket, size: int) -> bytes:
    """Return so many bytes, at best by a single call into memory that is not copied again."""
    parts = []
    while size:
        part = channel.recv(min(size, 2**30), socket.MSG_WAITALL)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def apart(value: Any, beside: Callable[[bytes], msgpack.ExtType]) -> Any:
    """Return plain data for msgpack, in which each long byte string is what `beside` returns for it."""
    if isinstance(value, bytes):
        return beside(value) if len(value) >= LONG else value
    if isinstance(value, dict):
        return {key: apart(item, beside) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [apart(item, beside) for item in value]
    return list(value) if isinstance(value, (set, frozenset)) else value
