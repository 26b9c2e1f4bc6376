"""Calls and their outcomes on the way between hub and workers: bytes by digest, through the shared blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack

from resonator.bus.blobs import BlobMissing, Blobs, digest_of
from resonator_hub.channel import LONG, Garbled, apart
from resonator_hub.shared_blobs import open_blobs
from resonator_hub.shelf import Shelf

FOLDER = "calls"
"""Where, below the blobs, what is none of them waits for whoever it is for."""
GREETING = b"The hub and its workers share these blobs."
_KEPT, _SENT = 1, 2
_HERE, _ELSEWHERE = b"h", b"e"


class Parcels:
    """Packs plain data into a few KiB: longer bytes are left at `where`, with the hub's blobs, under a key.

    Blocks while it reads and writes there. Every method raises BlobsUnreachable.
    """

    def __init__(self, where: str, blobs: Blobs) -> None:
        self._shelf = Shelf(where)
        self._blobs = blobs

    @classmethod
    def opened(cls, where: str, near: Path) -> Parcels:
        """Return those of a worker, which reads the hub's blobs by way of a cache at `near`."""
        return cls(where, open_blobs(where, near))

    def greet(self) -> str:
        """Keep something that workers look for, to know that they have the right blobs; return its digest."""
        return self._blobs.put(GREETING)

    def sees(self, greeting: str) -> bool:
        """Whether that is found here."""
        return self._blobs.has(greeting)

    def pack(self, key: str, message: Any) -> bytes:
        """Return what stands for `message`; blobs of the hub are named, not copied."""

        def beside(data: bytes) -> msgpack.ExtType:
            digest = digest_of(data)
            if self._blobs.has(digest):
                return msgpack.ExtType(_KEPT, bytes.fromhex(digest))
            return msgpack.ExtType(_SENT, self._leave(key, data))

        body: bytes = msgpack.packb(apart(message, beside))
        return _HERE + body if len(body) < LONG else _ELSEWHERE + self._leave(key, body)

    def unpack(self, key: str, parcel: bytes) -> Any:
        """Return the message. Raises BlobMissing when some of it is gone, Garbled for what is no parcel."""
        body = parcel[1:] if parcel[:1] == _HERE else self._fetch(key, parcel[1:])

        def brought(code: int, digest: bytes) -> bytes:
            return self._blobs.get(digest.hex()) if code == _KEPT else self._fetch(key, digest)

        try:
            return msgpack.unpackb(body, use_list=False, ext_hook=brought)
        except (ValueError, RecursionError, msgpack.UnpackException) as error:
            raise Garbled("a parcel is not msgpack") from error

    def clear(self, key: str) -> None:
        """Remove what was left under a call's key."""
        self._shelf.clear(f"{FOLDER}/{key}")

    def _leave(self, key: str, data: bytes) -> bytes:
        digest = digest_of(data)
        self._shelf.put(f"{FOLDER}/{key}/{digest}", data)
        return bytes.fromhex(digest)

    def _fetch(self, key: str, digest: bytes) -> bytes:
        name = f"{FOLDER}/{key}/{digest.hex()}"
        data = self._shelf.get(name)
        if digest_of(data) != digest.hex():
            raise BlobMissing(f"{name} was damaged in {self._shelf.shown}")
        return data
