"""What boxes ask of the authority over the bus: their next certificates, and who was revoked."""

from __future__ import annotations

import asyncio

import structlog

from resonator.bus.peer import Peer, Received
from resonator.errors import Refused, ResonatorError
from resonator.failures import Failure, FailureKind
from resonator.messages import (
    CertificateIssued,
    CertificateRequest,
    Message,
    Rejected,
    RevocationsKnown,
    RevocationsQuery,
)
from resonator.trust import Party
from resonator.trust.keys import read_request
from resonator.trust.seal import Seal
from resonator_hub.authority.access import Access
from resonator_hub.door import admit, device_of, to_device
from resonator_hub.tasks import Tasks

log = structlog.get_logger(__name__)

MOST_VALID = 4
"""How many certificates of one name may be valid at once: an answer may be lost, and asked for again."""


class Renewals:
    """Answers boxes; a hub that keeps no authority passes on what it knows of revocations, and no more."""

    def __init__(self, peer: Peer, seal: Seal, authority: Access | None) -> None:
        self._peer = peer
        self._seal = seal
        self._authority = authority
        self._tasks = Tasks()
        admit(peer, CertificateRequest, ("dev",), self._on_request)
        admit(peer, RevocationsQuery, ("dev",), self._on_query)

    async def close(self) -> None:
        """Stop; whoever was not answered will ask again."""
        await self._tasks.close()

    async def _on_request(self, received: Received, request: CertificateRequest) -> None:
        self._tasks.start(device_of(received), self._renew(received, request))

    async def _on_query(self, received: Received, query: RevocationsQuery) -> None:
        news = query.number < self._seal.revocations.number
        self._answer(received, RevocationsKnown(list=self._seal.revocations.data if news else None))

    async def _renew(self, received: Received, request: CertificateRequest) -> None:
        assert received.party is not None, "a hub with certificates hears nobody without"
        try:
            chain = await asyncio.to_thread(self._issue, received.party, request.request)
        except ResonatorError as error:
            log.warning("a certificate was not renewed", device=device_of(received), reason=str(error))
            failure = Failure(kind=FailureKind.FORBIDDEN, detail=str(error))
            self._answer(received, Rejected(failure=failure))
        else:
            log.info("a certificate was renewed", device=device_of(received))
            self._answer(received, CertificateIssued(chain=chain))

    def _issue(self, asking: Party, request: bytes) -> bytes:
        if self._authority is None:
            raise Refused("this hub keeps no authority: `resonator ca renew` where that is kept")
        party, key = read_request(request)
        if party != asking:
            raise Refused(f"{asking.user} asks for a certificate of {party.user}")
        with self._authority.opened() as authority:
            if authority.held_by(party.user) >= MOST_VALID:
                raise Refused(f"{party.user} has {MOST_VALID} valid certificates already")
            return authority.renew(party, key)

    def _answer(self, received: Received, message: Message) -> None:
        self._peer.post(to_device(device_of(received), "trust"), message, corr=received.id)
