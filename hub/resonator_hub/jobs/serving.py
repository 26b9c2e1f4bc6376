"""Blobs, both ways: pieces served to devices and clients, models pulled from clients."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from resonator.bus import topics
from resonator.bus.assembly import Assembly
from resonator.bus.blobs import BlobStore, serve
from resonator.bus.peer import Peer, Received
from resonator.errors import BusUnreachable, MessageInvalid
from resonator.messages import BlobAbsent, BlobChunk, BlobRef, BlobRequest, Message
from resonator_hub import inline
from resonator_hub.door import admit
from resonator_hub.jobs.blob_rights import BlobRights
from resonator_hub.tasks import happens

REPEAT_S = 1.0
"""How often a pull looks after what is overdue, in seconds."""


@dataclass(frozen=True)
class _Pull:
    """A blob on its way here, from the client who announced it and nobody else."""

    assembly: Assembly
    site: str
    client: str
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class Serving:
    """Answers requests for pieces of blobs, and fetches the blobs that clients announce."""

    def __init__(self, peer: Peer, blobs: BlobStore, rights: BlobRights) -> None:
        self._peer = peer
        self._blobs = blobs
        self._rights = rights
        self._pulls: dict[str, _Pull] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        admit(peer, BlobRequest, ("dev", "client"), self._on_request)
        admit(peer, BlobChunk, ("client",), self._on_piece)
        admit(peer, BlobAbsent, ("client",), self._on_piece)

    async def take(self, ref: BlobRef, site: str, client: str) -> None:
        """Have a client's blob in the store: it came along, is here already, or is pulled.

        Raises MessageInvalid when what came is not what was announced, BusUnreachable when it does not come.
        """
        if ref.data is not None:
            self._blobs.put(inline.unpack(ref))
            return
        lock = self._locks.setdefault(ref.digest, asyncio.Lock())
        async with lock:  # a blob grows in one file: one pull at a time
            await self._pull(ref, _Pull(Assembly(self._blobs, ref.digest, ref.size), site, client))
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
        if self._blobs.read(ref.digest, 0, 0)[1] != ref.size:
            raise MessageInvalid(f"blob {ref.digest} does not have the {ref.size} bytes that were announced")

    async def _on_request(self, received: Received, request: BlobRequest) -> None:
        address = received.address
        spell = topics.device_dn if address.kind == "dev" else topics.client_dn
        answer: Message = BlobAbsent(digest=request.digest)
        if self._rights.allow(received, request.digest):
            answer = serve(self._blobs, request)
        else:
            self._peer.refuse("withheld", received.topic, f"blob {request.digest} is not there, or not his")
        self._peer.post(spell(address.site, address.name, "blob"), answer, corr=received.id)

    async def _on_piece(self, received: Received, piece: BlobChunk | BlobAbsent) -> None:
        pull, address = self._pulls.get(piece.digest), received.address
        if pull is None or (address.site, address.name) != (pull.site, pull.client):
            self._peer.refuse("unasked", received.topic, f"no piece of blob {piece.digest} is wanted")
            return
        pull.assembly.accept(piece)
        pull.arrived.set()
