"""What whoever keeps an authority sees to: lists that are current, and a hub's own certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import structlog

from resonator.errors import ResonatorError
from resonator.trust import Credentials, Party
from resonator.trust.credentials import CERTIFICATE, REVOCATIONS
from resonator.trust.seal import Seal
from resonator_hub.authority.access import Access
from resonator_hub.authority.authority import REGISTER
from resonator_hub.authority.register import Register

log = structlog.get_logger(__name__)

LOOK_S = 10.0
"""How often it is looked whether somebody was revoked."""
FRESH = timedelta(days=1)
"""How old a list of revocations may become before the next is written, though nothing has changed."""


def own_identity(authority: Access, party: Party) -> Path:
    """Return the folder of a hub's identity; made, or renewed, if need be."""
    with authority.opened() as opened:
        folder = opened.place(party.user)
        if not (folder / CERTIFICATE).is_file():
            opened.enrol(party, folder)
            log.info(f"{party.user} has an identity now", folder=str(folder))
        elif Credentials.load(folder).renew_at <= datetime.now(timezone.utc):
            opened.renew_in(folder, party)
    return folder


def keep_lists_fresh(authority: Access) -> None:
    """Write a new list of revocations where the authority's last one is old."""
    written = datetime.fromtimestamp((authority.folder / REVOCATIONS).stat().st_mtime, timezone.utc)
    if datetime.now(timezone.utc) - written > FRESH:
        with authority.opened() as opened:
            opened.keep()


class Custody:
    """Looks after an authority on a hub, which itself speaks with `seal` and over `tls`.

    `renewed` is called when the hub has a new certificate, so that it connects with it, `changed` with the
    register at first and whenever that has changed.
    """

    def __init__(
        self,
        authority: Access,
        seal: Seal,
        tls: ssl.SSLContext,
        renewed: Callable[[], None],
        changed: Callable[[Register], None],
    ) -> None:
        self._authority = authority
        self._seal = seal
        self._tls = tls
        self._renewed = renewed
        self._changed = changed
        self._known: int | None = None

    async def run(self) -> None:
        """Look after it until cancelled."""
        while True:
            try:
                if await asyncio.to_thread(self._renew):
                    self._take_up()
                if (register := await asyncio.to_thread(self._news)) is not None:
                    self._changed(register)
            except (OSError, ResonatorError) as error:
                log.error("the authority cannot be looked after", reason=str(error))
            await asyncio.sleep(LOOK_S)

    def _renew(self) -> bool:
        """Write what is due; return whether the hub has a new certificate."""
        keep_lists_fresh(self._authority)
        own = self._seal.credentials
        due = own.renew_at <= datetime.now(timezone.utc)
        if due:
            with self._authority.opened() as opened:
                opened.renew_in(own.folder, own.party)
        return due

    def _take_up(self) -> None:
        """Speak with the new certificate from now on."""
        self._seal.renew()
        self._seal.credentials.equip(self._tls)
        self._renewed()
        log.info("the hub has a new certificate", until=f"{self._seal.credentials.valid_until:%Y-%m-%d}")

    def _news(self) -> Register | None:
        """Return the register, and know who was revoked, if something has changed."""
        revocations = self._authority.folder / REVOCATIONS
        written = revocations.stat().st_mtime_ns
        if written == self._known:
            return None
        self._known = written
        if self._seal.learn(revocations.read_bytes()):
            log.info("revoked certificates are known", number=len(self._seal.revocations.serials))
        return Register.read(self._authority.folder / REGISTER)
