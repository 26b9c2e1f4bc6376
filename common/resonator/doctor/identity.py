"""Whether an identity is complete, private, of this fleet, and valid for a while."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from resonator.doctor.finding import Finding, failed, ok, warning
from resonator.errors import InputInvalid
from resonator.trust import Credentials, Party
from resonator.trust.credentials import AUTHORITY, CERTIFICATE, REVOCATIONS
from resonator.trust.revocations import Revocations

SOON_DAYS = 30
"""An authority's own certificate is renewed by people, who need some notice."""


def look_at_identity(
    folder: Path, expected: Party | None = None, *, now: datetime | None = None
) -> list[Finding]:
    """Examine a folder of key and certificates, `expected` to be those of a party, at a time."""
    name = "certificate"
    try:
        credentials = Credentials.load(folder)
        credentials.context()
    except InputInvalid as error:
        return [failed(name, str(error), "do as it says, or enrol again: see docs/quickstart-secure.md")]
    party = credentials.party
    if expected is not None and party.user != expected.user:
        says = f"{folder} is the identity of {party.user}, not of {expected.user}"
        return [failed(name, says, "name the right folder by --identity, or the right --site")]
    issuers = x509.load_pem_x509_certificates((folder / AUTHORITY).read_bytes())
    own = x509.load_pem_x509_certificates((folder / CERTIFICATE).read_bytes())[0]
    if not any(_issued_by(own, issuer) for issuer in issuers):
        says = f"the certificate in {folder} was not issued by the authority in {AUTHORITY}"
        return [failed(name, says, "copy ca.crt from the fleet's authority, or enrol again")]
    if _revoked(folder, own, issuers):
        says = f"the certificate of {party.user} was revoked"
        return [failed(name, says, _renewal(party, "ask whoever keeps the authority why, then "))]
    now = now or datetime.now(timezone.utc)
    return [_validity(credentials, now), *_authority(issuers, now)]


def _validity(credentials: Credentials, now: datetime) -> Finding:
    name, party = "certificate", credentials.party
    days = (credentials.valid_until - now).total_seconds() / 86400
    if now < credentials.valid_from:
        says = f"the certificate of {party.user} is valid from {credentials.valid_from:%Y-%m-%d %H:%M} UTC on"
        return failed(
            name, says, "set this machine's clock; if it is right, set that of the authority's machine"
        )
    if days < 0:
        says = f"the certificate of {party.user} has expired on {credentials.valid_until:%Y-%m-%d}"
        return failed(name, says, _renewal(party))
    says = f"{party.user} ({party.role}), valid for {days:.0f} more days"
    if now > credentials.renew_at:
        return warning(name, f"{says}: it should have been renewed by now", _renewal(party))
    return ok(name, says)


def _renewal(party: Party, before: str = "") -> str:
    if party.role == "device":
        return f"{before}enrol this box again, with a new token (`resonator agent enroll`)"
    return f"{before}run `resonator ca renew {party.user}` where the authority is kept"


def _authority(issuers: list[x509.Certificate], now: datetime) -> list[Finding]:
    until = min(issuer.not_valid_after_utc for issuer in issuers)
    days = (until - now).total_seconds() / 86400
    if days > SOON_DAYS:
        return []
    says = f"the fleet's authority is valid until {until:%Y-%m-%d}"
    advice = "make a new authority and enrol the fleet again"
    return [failed("certificate", says, advice) if days < 0 else warning("certificate", says, advice)]


def _revoked(folder: Path, own: x509.Certificate, issuers: list[x509.Certificate]) -> bool:
    if not (folder / REVOCATIONS).is_file():
        return False
    return own.serial_number in Revocations.read((folder / REVOCATIONS).read_bytes(), issuers).serials


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
