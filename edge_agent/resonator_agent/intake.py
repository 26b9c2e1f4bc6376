"""Blobs on their way to this device: unpacked from a message, found on disk, or pulled from the hub."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

from resonator.bus.assembly import Assembly
from resonator.bus.blobs import BlobStore, digest_of
from resonator.failures import Failure, FailureKind
from resonator.messages import BlobAbsent, BlobChunk, BlobRef, BlobRequest

Done = Callable[[str, "Failure | None"], None]
"""Told a digest, and why its blob will not come (None: it is in the store)."""


class Intake:
    """Fetches blobs into `store`; `send` asks the hub for a piece, `done` hears of each blob's end."""

    def __init__(self, store: BlobStore, send: Callable[[BlobRequest], None], done: Done):
        self._store = store
        self._send = send
        self._done = done
        self._pulls: dict[str, Assembly] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def fetch(self, ref: BlobRef) -> None:
        """Begin to fetch a blob."""
        if self._store.has(ref.digest):
            self._done(ref.digest, None)
            return
        try:
            if ref.data is not None:
                self._unpack(ref, ref.data)
            elif ref.digest not in self._pulls:
                self._pulls[ref.digest] = Assembly(self._store, ref.digest, ref.size)
                self._pump(ref.digest)
        except OSError as error:
            self._disk_failed(ref.digest, error)

    def accept(self, answer: BlobChunk | BlobAbsent) -> None:
        """Take the hub's answer to a request; one that was not asked for is ignored."""
        pull = self._pulls.get(answer.digest)
        if pull is None:
            return
        try:
            pull.accept(answer)
        except OSError as error:
            self._disk_failed(answer.digest, error)
        else:
            self._pump(answer.digest)

    def drop(self, digest: str) -> None:
        """Remove a blob, and stop fetching it."""
        self._forget(digest)
        self._store.delete(digest)
        self._store.partial_path(digest).unlink(missing_ok=True)

    def close(self) -> None:
        """Stop fetching."""
        for digest in list(self._pulls):
            self._forget(digest)

    def _unpack(self, ref: BlobRef, packed: bytes) -> None:
        try:
            # One byte more than announced is enough to know; a bomb is not unpacked further.
            data = zlib.decompressobj().decompress(packed, ref.size + 1)
        except zlib.error:
            data = b""
        if len(data) != ref.size or digest_of(data) != ref.digest:
            detail = f"blob {ref.digest}: the bytes in the message are not {ref.size} bytes of that digest"
            self._done(ref.digest, Failure(kind=FailureKind.BLOB_CORRUPT, detail=detail))
        else:
            self._store.put(data)
            self._done(ref.digest, None)

    def _pump(self, digest: str) -> None:
        pull = self._pulls[digest]
        loop = asyncio.get_running_loop()
        for request in pull.requests(loop.time()):
            self._send(request)
        self._cancel_timer(digest)
        if pull.over:
            self._forget(digest)
            self._done(digest, pull.failure)
        elif pull.wake_at is not None:
            self._timers[digest] = loop.call_at(pull.wake_at, self._pump, digest)

    def _disk_failed(self, digest: str, error: OSError) -> None:
        self._forget(digest)
        detail = f"blob {digest} cannot be kept on this device: {error.strerror}"
        self._done(digest, Failure(kind=FailureKind.DEVICE_REFUSED, detail=detail))

    def _forget(self, digest: str) -> None:
        self._pulls.pop(digest, None)
        self._cancel_timer(digest)

    def _cancel_timer(self, digest: str) -> None:
        timer = self._timers.pop(digest, None)
        if timer is not None:
            timer.cancel()
