"""Certificates given and revoked are journalled once, and a device that was put out is gone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from resonator.ids import DeviceId
from resonator.trust import Party
from resonator_hub.authority import Authority
from resonator_hub.authority.authority import REGISTER
from resonator_hub.authority.chronicle import Chronicle
from resonator_hub.authority.register import Register
from resonator_hub.database import Database, sqlite_url
from resonator_hub.inbox import Clock, Inbox
from resonator_hub.journal import Journal
from resonator_hub.scheduler.events import Event, PartyCertified, PartyRevoked

BOX, ANN = Party("device", "lab", "box"), Party("submitter", "lab", "ann")


class Hub:
    """A journal, and the chronicle of one life of a hub."""

    def __init__(self, folder: Path) -> None:
        self._ca = folder / "ca"
        self._database = Database.open(sqlite_url(folder / "hub.db"))
        self._journal, self._inbox = Journal(self._database), Inbox(Clock())
        self.put_out: list[DeviceId] = []
        self._chronicle = Chronicle(self._journal, self._inbox, self.put_out.append)

    async def reads(self) -> list[Event]:
        """Read the register, and return what is journalled of it."""
        self._chronicle.read(Register.read(self._ca / REGISTER))
        if not self._inbox.waiting():
            return []
        events = [posted.event for posted in await self._inbox.next()]
        self._journal.append_all([(event, None) for event in events])
        return events

    def ends(self) -> None:
        self._database.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Authority.create(tmp_path / "ca", "Test fleet", None)
    with Authority.open(tmp_path / "ca", None) as authority:
        authority.enrol(BOX, tmp_path / "box")
        authority.enrol(ANN, tmp_path / "ann")
    return tmp_path


async def test_trust_is_journalled_once_also_over_a_restart(folder: Path) -> None:
    hub = Hub(folder)
    assert [(type(one), one.party) for one in await hub.reads()] == [  # type: ignore[union-attr]
        (PartyCertified, "lab/dev/box"),
        (PartyCertified, "lab/client/ann"),
    ]
    assert await hub.reads() == []
    hub.ends()
    with Authority.open(folder / "ca", None) as authority:
        (entry,) = authority.revoke("ann")
    hub = Hub(folder)
    (revoked,) = await hub.reads()
    assert isinstance(revoked, PartyRevoked)
    assert (revoked.party, revoked.serial) == ("lab/client/ann", entry.serial)
    assert revoked.by
    assert await hub.reads() == []
    assert hub.put_out == []
    hub.ends()


async def test_trust_a_device_is_gone_when_its_last_certificate_is_revoked(folder: Path) -> None:
    hub = Hub(folder)
    with Authority.open(folder / "ca", None) as authority:
        authority.renew_in(folder / "box", BOX, timedelta(days=1))
        first = authority.find("box")[0]
        authority.register.revoke([first], datetime.now(timezone.utc), "root")
        authority.keep()
    assert len(await hub.reads()) == 4
    assert hub.put_out == [], "its other certificate is valid"
    with Authority.open(folder / "ca", None) as authority:
        authority.revoke("box")
    assert len(await hub.reads()) == 1
    assert hub.put_out == ["lab/box"]
    hub.ends()
