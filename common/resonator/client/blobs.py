"""The blobs a client gives to its hub and takes from it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from resonator.bus import topics
from resonator.bus.assembly import Assembly
from resonator.bus.blobs import BlobStore
from resonator.bus.peer import Peer, Received
from resonator.errors import BusUnreachable, InputInvalid
from resonator.messages import BlobAbsent, BlobChunk, BlobRef, BlobRequest


class Blobs:
    """Answers the hub's requests for what is offered, and pulls what the hub has."""

    def __init__(self, peer: Peer, site: str, client: str) -> None:
        self._peer = peer
        self._topic = topics.client_up(site, client, "blob")
        self._reply_to = topics.client_dn(site, client, "blob")
        self._offers: dict[str, bytes] = {}
        self._assemblies: dict[str, Assembly] = {}
        self._arrived = asyncio.Event()
        self._disk_error: OSError | None = None
        peer.on(BlobRequest, self._serve)
        peer.on(BlobChunk, self._take)
        peer.on(BlobAbsent, self._take)

    @contextlib.contextmanager
    def offered(self, digest: str, data: bytes) -> Iterator[None]:
        """Serve `data` by its digest for as long as the context lasts."""
        self._offers[digest] = data
        try:
            yield
        finally:
            self._offers.pop(digest, None)

    async def pull(self, blob: BlobRef, path: Path) -> None:
        """Write `blob` to `path`, whole and verified or not at all.

        What has come is kept beside it in `{path}.part`, so that a broken-off pull goes on where it was.
        Raises `InputInvalid` when nothing can be written there, `BusUnreachable` when the blob does not come.
        """
        folder = path.with_name(path.name + ".part")
        try:
            store = BlobStore(folder)
            await self._assemble(Assembly(store, blob.digest, blob.size), blob.digest)
            store.path(blob.digest).replace(path)
            _remove(folder)
        except OSError as error:
            raise InputInvalid(f"{path} cannot be written: {error.strerror}") from error

    async def _assemble(self, assembly: Assembly, digest: str) -> None:
        self._assemblies[digest] = assembly
        self._disk_error = None
        try:
            while not assembly.over:
                if self._disk_error is not None:
                    raise self._disk_error
                self._arrived.clear()
                for request in assembly.requests(time.monotonic()):
                    self._peer.post(self._topic, request, reply_to=self._reply_to)
                if assembly.wake_at is not None:
                    await self._wait_until(assembly.wake_at)
        finally:
            del self._assemblies[digest]
        if assembly.failure is not None:
            raise BusUnreachable(f"the hub did not hand over the bundle: {assembly.failure.detail}")

    async def _wait_until(self, at: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), max(0.0, at - time.monotonic()))

    async def _take(self, received: Received) -> None:
        answer = received.message
        assert isinstance(answer, (BlobChunk, BlobAbsent))
        if assembly := self._assemblies.get(answer.digest):
            try:
                assembly.accept(answer)
            except OSError as error:
                self._disk_error = error  # for whoever pulls; this is the task that hears messages
            self._arrived.set()

    async def _serve(self, received: Received) -> None:
        request = received.message
        assert isinstance(request, BlobRequest)
        data = self._offers.get(request.digest)
        answer: BlobChunk | BlobAbsent = BlobAbsent(digest=request.digest)
        if data is not None:
            piece = data[request.offset : request.offset + request.length]
            answer = BlobChunk(digest=request.digest, offset=request.offset, total=len(data), data=piece)
        self._peer.post(self._topic, answer, corr=received.id)


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
