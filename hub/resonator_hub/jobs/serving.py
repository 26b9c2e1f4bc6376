"""Blobs, both ways: pieces served to devices and clients, models pulled from clients."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from resonator.bus import topics
from resonator.bus.assembly import Assembly
from resonator.bus.blobs import Blobs, BlobsUnreachable, serve
from resonator.bus.peer import Peer, Received
from resonator.errors import BusUnreachable, MessageInvalid
from resonator.messages import BlobAbsent, BlobChunk, BlobRef, BlobRequest, Message
from resonator_hub import inline
from resonator_hub.door import admit
from resonator_hub.jobs.blob_rights import BlobRights
from resonator_hub.tasks import Tasks, happens

log = structlog.get_logger(__name__)
REPEAT_S = 1.0
"""How often a pull looks after what is overdue, in seconds."""


class _Landing:
    """Where a pulled blob arrives; from there it goes into the store, which may take its time for it."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.file: Path | None = None
        self.has, self.partial_path = blobs.has, blobs.partial_path

    def adopt(self, file: Path, _digest: str) -> None:
        """Take a complete file."""
        self.file = file


@dataclass(frozen=True)
class _Pull:
    """A blob on its way here, from the client who announced it and nobody else."""

    assembly: Assembly
    site: str
    client: str
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class Serving:
    """Answers requests for pieces of blobs, and fetches the blobs that clients announce."""

    def __init__(self, peer: Peer, blobs: Blobs, rights: BlobRights) -> None:
        self._peer = peer
        self._blobs = blobs
        self._rights = rights
        self._pulls: dict[str, _Pull] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._far: dict[str, deque[tuple[Received, BlobRequest]]] = {}
        """Who asks for pieces of blobs that are not on this machine."""
        self._tasks = Tasks()
        admit(peer, BlobRequest, ("dev", "client"), self._on_request)
        admit(peer, BlobChunk, ("client",), self._on_piece)
        admit(peer, BlobAbsent, ("client",), self._on_piece)

    async def close(self) -> None:
        """Stop; whoever was not answered will ask again."""
        await self._tasks.close()

    async def take(self, ref: BlobRef, site: str, client: str) -> None:
        """Have a client's blob in the store: it came along, is here already, or is pulled.

        Raises MessageInvalid when what came is not what was announced, BusUnreachable when it does not come.
        """
        if ref.data is not None:
            await asyncio.to_thread(self._blobs.put, inline.unpack(ref))
            return
        lock = self._locks.setdefault(ref.digest, asyncio.Lock())
        async with lock:  # a blob grows in one file: one pull at a time
            landing = _Landing(self._blobs)
            await self._pull(ref, _Pull(Assembly(landing, ref.digest, ref.size), site, client))
            await asyncio.to_thread(self._settle, ref, landing)
        if not lock.locked():
            self._locks.pop(ref.digest, None)

    async def _pull(self, ref: BlobRef, pull: _Pull) -> None:
        assembly, topic = pull.assembly, topics.client_dn(pull.site, pull.client, "blob")
        self._pulls[ref.digest] = pull
        try:
            while not assembly.over:
                pull.arrived.clear()
                for request in assembly.requests(time.monotonic()):
                    self._peer.post(topic, request)
                await happens(pull.arrived, REPEAT_S)
        finally:
            del self._pulls[ref.digest]
        if assembly.failure is not None:
            raise BusUnreachable(assembly.failure.detail)

    def _settle(self, ref: BlobRef, landing: _Landing) -> None:
        if landing.file is not None:
            self._blobs.adopt(landing.file, ref.digest)
        if self._blobs.read(ref.digest, 0, 0)[1] != ref.size:
            raise MessageInvalid(f"blob {ref.digest} does not have the {ref.size} bytes that were announced")

    async def _on_request(self, received: Received, request: BlobRequest) -> None:
        digest = request.digest
        try:
            allowed = self._rights.allow(received, digest)
        except BlobsUnreachable as error:
            log.warning("blob not served", blob=digest, reason=str(error))
            return
        if not allowed:
            self._peer.refuse("withheld", received.topic, f"blob {digest} is not there, or not his")
            self._answer(received, BlobAbsent(digest=digest))
        elif self._blobs.near(digest):
            self._answer(received, serve(self._blobs, request))
        elif digest in self._far:
            self._far[digest].append((received, request))
        else:
            waiting = self._far[digest] = deque([(received, request)])
            self._tasks.start(digest, self._serve_far(digest, waiting))

    async def _serve_far(self, digest: str, waiting: deque[tuple[Received, BlobRequest]]) -> None:
        """Answer everybody who asks for pieces of a blob, one after the other: the first brings it near."""
        try:
            while waiting:
                received, request = waiting.popleft()
                self._answer(received, await asyncio.to_thread(serve, self._blobs, request))
        except BlobsUnreachable as error:  # they ask again
            log.warning("blob not served", blob=digest, reason=str(error))
        finally:
            del self._far[digest]

    def _answer(self, received: Received, answer: Message) -> None:
        address = received.address
        spell = topics.device_dn if address.kind == "dev" else topics.client_dn
        self._peer.post(spell(address.site, address.name, "blob"), answer, corr=received.id)

    async def _on_piece(self, received: Received, piece: BlobChunk | BlobAbsent) -> None:
        pull, address = self._pulls.get(piece.digest), received.address
        if pull is None or (address.site, address.name) != (pull.site, pull.client):
            self._peer.refuse("unasked", received.topic, f"no piece of blob {piece.digest} is wanted")
            return
        pull.assembly.accept(piece)
        pull.arrived.set()
