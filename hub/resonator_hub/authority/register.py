"""What an authority has issued: a JSON file that people can read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from resonator.errors import InputInvalid
from resonator.jobspec import explain
from resonator.trust import Party, Role, party_of


class Entry(BaseModel):
    """One certificate: whom it names, how long it is valid, since when it is not, and by whose account."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$")]
    role: Role
    site: str
    name: str
    issued: datetime
    valid_until: datetime
    revoked: datetime | None = None
    revoked_by: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def party(self) -> Party:
        """Whom the certificate names."""
        return Party(self.role, self.site, self.name)

    @property
    def number(self) -> int:
        """The serial number."""
        return int(self.serial, 16)


_ENTRIES: TypeAdapter[tuple[Entry, ...]] = TypeAdapter(tuple[Entry, ...])


class Register:
    """The entries of an authority, oldest first."""

    def __init__(self, entries: tuple[Entry, ...] = ()) -> None:
        self._entries = {entry.serial: entry for entry in entries}

    @classmethod
    def read(cls, path: Path) -> Register:
        """Read the file; raises InputInvalid."""
        try:
            return cls(_ENTRIES.validate_json(path.read_bytes()))
        except OSError as error:
            raise InputInvalid(f"{path} cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise InputInvalid(f"{path} is no register of certificates: {explain(error)}") from None

    def to_json(self) -> bytes:
        """Return what the file holds."""
        return _ENTRIES.dump_json(tuple(self), indent=2)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def add(self, certificate: x509.Certificate, at: datetime, hosts: tuple[str, ...]) -> Entry:
        """Enter a certificate that was issued just now."""
        party = party_of(certificate)
        entry = Entry(
            serial=f"{certificate.serial_number:x}",
            role=party.role,
            site=party.site,
            name=party.name,
            issued=at,
            valid_until=certificate.not_valid_after_utc,
            hosts=hosts,
        )
        self._entries[entry.serial] = entry
        return entry

    def valid(self, at: datetime) -> list[Entry]:
        """Return the certificates that are neither revoked nor expired."""
        return [entry for entry in self if entry.revoked is None and entry.valid_until > at]

    def revoke(self, entries: list[Entry], at: datetime, by: str) -> None:
        """Note that certificates are valid no longer; `by` is the account that asked for it."""
        for entry in entries:
            self._entries[entry.serial] = entry.model_copy(update={"revoked": at, "revoked_by": by})
