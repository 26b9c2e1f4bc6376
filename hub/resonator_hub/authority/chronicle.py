"""What the authority has done goes into the hub's journal: every certificate given and revoked, once."""

from __future__ import annotations

from collections.abc import Callable

from resonator.ids import DeviceId, device_id
from resonator_hub.authority.register import Entry, Register
from resonator_hub.inbox import Inbox
from resonator_hub.journal import Journal
from resonator_hub.scheduler.events import PartyCertified, PartyRevoked


class Chronicle:
    """Reads an authority's register; `put_out` is told of devices that belong to the fleet no more."""

    def __init__(self, journal: Journal, inbox: Inbox, put_out: Callable[[DeviceId], None]) -> None:
        self._inbox = inbox
        self._put_out = put_out
        self._certified = {event.serial for event in journal.of(PartyCertified)}
        self._revoked = {event.serial for event in journal.of(PartyRevoked)}

    def read(self, register: Register) -> None:
        """Journal what is new in the register."""
        for entry in register:
            if entry.serial not in self._certified:
                self._certified.add(entry.serial)
                self._inbox.post(PartyCertified(self._inbox.now(), entry.party.user, entry.serial))
            if entry.revoked is not None and entry.serial not in self._revoked:
                self._revoked.add(entry.serial)
                self._note_revoked(entry, register)

    def _note_revoked(self, entry: Entry, register: Register) -> None:
        party = entry.party
        self._inbox.post(PartyRevoked(self._inbox.now(), party.user, entry.serial, entry.revoked_by))
        if party.role == "device" and not any(one.party == party and one.revoked is None for one in register):
            self._put_out(device_id(party.site, party.name))
