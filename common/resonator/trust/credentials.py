"""What proves who somebody is: a folder with a key, its certificate, and the fleet's authority."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from typing_extensions import Self

from resonator.errors import InputInvalid
from resonator.trust.party import Party, party_of

AUTHORITY, CERTIFICATE, KEY, REVOCATIONS = "ca.crt", "own.crt", "own.key", "revoked.crl"
_MAX_BYTES = 64 * 1024
_OTHERS = 0o077
"""The permissions of a file that others than its owner have."""


class _Socket(ssl.SSLSocket):
    """A socket that is closed when the other side is not to be trusted: paho loses sight of it then."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


@dataclass(frozen=True)
class Credentials:
    """Somebody's certificate and key, and the certificates of the authority that he trusts."""

    folder: Path
    party: Party
    valid_from: datetime
    """With its zone, UTC; so is `valid_until`."""
    valid_until: datetime

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `resonator ca` or an enrolment wrote; raises InputInvalid."""
        for name in (AUTHORITY, CERTIFICATE, KEY):
            _check(folder / name)
        if (folder / KEY).stat().st_mode & _OTHERS:
            raise InputInvalid(f"{folder / KEY} can be read by others; run `chmod 600 {folder / KEY}`")
        try:
            certificate = x509.load_pem_x509_certificates((folder / CERTIFICATE).read_bytes())[0]
        except ValueError:
            raise InputInvalid(f"{folder / CERTIFICATE} is not a certificate in PEM") from None
        valid = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return cls(folder, party_of(certificate), *valid)

    @property
    def renew_at(self) -> datetime:
        """When to ask for the next certificate: after two thirds of the life of this one."""
        return self.valid_from + (self.valid_until - self.valid_from) * 2 / 3

    def context(self) -> ssl.SSLContext:
        """Return how to open connections: TLS 1.2 or later, both sides with a certificate of the fleet.

        Raises InputInvalid where key and certificate do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # asks for the other's certificate, checks its name
        context.sslsocket_class = _Socket
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(self.folder / AUTHORITY)
        except ssl.SSLError:
            raise InputInvalid(f"{self.folder / AUTHORITY} is no certificate in PEM") from None
        self.equip(context)
        return context

    def equip(self, context: ssl.SSLContext) -> None:
        """Have the next connections of a context use what is in the folder now; raises as `context` does."""
        try:
            context.load_cert_chain(self.folder / CERTIFICATE, self.folder / KEY)
        except ssl.SSLError as error:
            reason = error.reason or "no reason given"
            raise InputInvalid(f"certificate and key in {self.folder} do not fit: {reason}") from None


def _check(path: Path) -> None:
    if not path.is_file():
        raise InputInvalid(f"{path} is missing: an identity is a folder of {AUTHORITY}, {CERTIFICATE}, {KEY}")
    if path.stat().st_size > _MAX_BYTES:
        raise InputInvalid(f"{path} is larger than {_MAX_BYTES // 1024} KiB: that is no certificate or key")
