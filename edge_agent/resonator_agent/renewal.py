"""A box's standing in the fleet: its certificate is renewed, and whoever was revoked is heard no more."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TypeVar

import structlog

from resonator.bus import topics
from resonator.bus.peer import Peer
from resonator.errors import ResonatorError
from resonator.messages import CertificateIssued, CertificateRequest, RevocationsKnown, RevocationsQuery
from resonator.trust.credentials import KEY
from resonator.trust.keys import read_key, replace_certificate, signing_request
from resonator.trust.seal import Seal

log = structlog.get_logger(__name__)
A = TypeVar("A", CertificateIssued, RevocationsKnown)

PERIOD_S = 3600.0
"""How often it is looked whether the certificate has to be renewed, and who was revoked."""
ANSWER_S = 20.0


class Renewal:
    """Asks the hub, whenever the box has connected and every hour, for what it needs to stay in the fleet.

    At two thirds of its life the certificate of `seal` is renewed, for the same key; `renewed` is called
    then, so that the next connection is made with it.
    """

    def __init__(self, peer: Peer, seal: Seal, tls: ssl.SSLContext, renewed: Callable[[], None]) -> None:
        self._peer = peer
        self._seal = seal
        self._tls = tls
        self._renewed = renewed
        self._connected = asyncio.Event()

    def connected(self) -> None:
        """Note that the hub can be asked."""
        self._connected.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._connected.wait(), PERIOD_S)
            except asyncio.TimeoutError:
                log.debug("an hour has passed")
            self._connected.clear()
            try:
                await self._learn()
                await self._renew()
            except (OSError, ResonatorError) as error:
                until = f"{self._seal.credentials.valid_until:%Y-%m-%d}"
                log.warning("the hub was asked in vain", certificate_until=until, reason=str(error))

    async def _learn(self) -> None:
        query = RevocationsQuery(number=self._seal.revocations.number)
        known = await self._ask(query, RevocationsKnown)
        if known.list is not None and self._seal.learn(known.list):
            log.info("revoked certificates are known", number=len(self._seal.revocations.serials))

    async def _renew(self) -> None:
        own = self._seal.credentials
        if datetime.now(timezone.utc) < own.renew_at:
            return
        request = signing_request(own.party, read_key(own.folder / KEY))
        issued = await self._ask(CertificateRequest(request=request), CertificateIssued)
        replace_certificate(own.folder, issued.chain)
        self._seal.renew()
        self._seal.credentials.equip(self._tls)
        log.info("this box has a new certificate", until=f"{self._seal.credentials.valid_until:%Y-%m-%d}")
        self._renewed()

    async def _ask(self, question: CertificateRequest | RevocationsQuery, answer: type[A]) -> A:
        party = self._seal.credentials.party
        up, dn = (spell(party.site, party.name, "trust") for spell in (topics.device_up, topics.device_dn))
        return await self._peer.request(up, question, answer, reply_to=dn, timeout=ANSWER_S)
