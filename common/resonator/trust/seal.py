"""Signatures on messages (Ed25519, RFC 8032): a broker carries them, but cannot make or change any."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from resonator.bus.topics import Address
from resonator.errors import MessageInvalid
from resonator.trust.credentials import AUTHORITY, CERTIFICATE, KEY, REVOCATIONS, Credentials
from resonator.trust.keys import read_key, replace
from resonator.trust.party import Party, party_of
from resonator.trust.revocations import Revocations

_PURPOSE = b"resonator message 1\0"
"""What is signed begins with it, so that no signature of another kind passes for one of a message."""
MAX_CERTIFICATE = 2048


class SignatureInvalid(MessageInvalid):
    """A message is not signed, not by whom it has to be, or not as it is."""


class Seal:
    """Signs what somebody says, and checks who said what he hears."""

    def __init__(self, credentials: Credentials) -> None:
        folder = credentials.folder
        authorities = x509.load_pem_x509_certificates((folder / AUTHORITY).read_bytes())
        self._key = read_key(folder / KEY)
        self._issuers = [one for one in authorities if _issues(one)]
        self._known = lru_cache(maxsize=4096)(self._verified)
        self.credentials = credentials
        self.certificate = _own(folder)
        self.revocations = Revocations()
        if (folder / REVOCATIONS).exists():
            self.revocations = Revocations.read((folder / REVOCATIONS).read_bytes(), self._issuers)

    def renew(self) -> None:
        """Speak with the certificate that is in the identity's folder now."""
        self.credentials = Credentials.load(self.credentials.folder)
        self.certificate = _own(self.credentials.folder)

    def learn(self, revocations: bytes) -> bool:
        """Keep the authority's list (PEM) if it is later than the one known; return whether it says more.

        From then on nobody on it is heard. Raises CertificateInvalid for a list that is none of this fleet.
        """
        known, news = self.revocations, Revocations.read(revocations, self._issuers)
        if news.number <= known.number:
            return False
        replace(self.credentials.folder / REVOCATIONS, revocations)
        self.revocations = news
        return not news.serials <= known.serials

    def sign(self, topic: str, content: bytes) -> bytes:
        """Return the signature of what is said on a topic."""
        return self._key.sign(_signed(topic, content))

    def check(
        self, topic: str, address: Address, content: bytes, certificate: bytes | None, signature: bytes | None
    ) -> Party:
        """Return who said something on a topic; raises SignatureInvalid for anybody who may not say it."""
        if certificate is None or signature is None:
            raise SignatureInvalid("it is not signed")
        party, key, serial, begin, end = self._known(certificate)
        if serial in self.revocations.serials:
            raise SignatureInvalid(f"the certificate of {party.user} was revoked")
        if not begin <= datetime.now(timezone.utc) <= end:
            raise SignatureInvalid(f"the certificate of {party.user} has expired, or is not valid yet")
        if not speaks_at(party, address):
            raise SignatureInvalid(f"{party.role} {party.user} has no say here")
        try:
            key.verify(signature, _signed(topic, content))
        except InvalidSignature:
            raise SignatureInvalid(f"the signature is not that of {party.user}") from None
        return party

    def _verified(self, data: bytes) -> tuple[Party, Ed25519PublicKey, int, datetime, datetime]:
        """Return whom a certificate names, his key, its serial number, and its life; checked once each."""
        try:
            certificate = x509.load_der_x509_certificate(data)
            party, key = party_of(certificate), certificate.public_key()
        except Exception as error:  # cryptography has many for what is no certificate, not of one family
            raise SignatureInvalid(f"its certificate cannot be read: {error}") from None
        if not any(_issued_by(certificate, issuer) for issuer in self._issuers):
            raise SignatureInvalid(f"the certificate of {party.user} is not of this fleet")
        if not isinstance(key, Ed25519PublicKey):
            raise SignatureInvalid(f"the key of {party.user} is not an Ed25519 key")
        life = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return party, key, certificate.serial_number, *life


def speaks_at(party: Party, address: Address) -> bool:
    """Return whether a party is the one whose messages belong on a topic."""
    if address.direction == "up":
        return party.user == f"{address.site}/{address.kind}/{address.name}"
    if address.kind == "hub":
        return party.user == f"{address.site}/hub/{address.name}"
    return party.role == "hub"


def _own(folder: Path) -> bytes:
    own = x509.load_pem_x509_certificates((folder / CERTIFICATE).read_bytes())[0]
    return own.public_bytes(Encoding.DER)


def _signed(topic: str, content: bytes) -> bytes:
    return _PURPOSE + topic.encode() + b"\0" + content


def _issues(certificate: x509.Certificate) -> bool:
    """Return whether a certificate is that of the authority which issues those of parties."""
    try:
        limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return limits.ca and limits.path_length == 0


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
