"""What the certificates of a fleet say (RFC 5280), all of them with Ed25519 keys (RFC 8410)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from resonator.errors import InputInvalid
from resonator.trust import Party

ROOT_LIFE = timedelta(days=3650)
ISSUING_LIFE = timedelta(days=1825)
_SKEW = timedelta(minutes=5)
"""How far the clock of a box may be behind that of the authority."""


@dataclass(frozen=True)
class Issuer:
    """A certificate that may sign others, and its key."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey


def root(fleet: str, now: datetime) -> Issuer:
    """Make the certificate that everything rests on; it signs itself."""
    key, name = Ed25519PrivateKey.generate(), _authority(fleet, "root")
    made = _builder(name, name, key.public_key(), now, ROOT_LIFE)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    return Issuer(_for_signing(made, key.public_key()).sign(key, None), key)


def issuing(fleet: str, by: Issuer, now: datetime) -> Issuer:
    """Make the certificate that signs those of parties, so that the root's key can be put away."""
    key = Ed25519PrivateKey.generate()
    made = _builder(_authority(fleet, "issuing"), by.certificate.subject, key.public_key(), now, ISSUING_LIFE)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made = made.add_extension(_issued_by(by), critical=False)
    return Issuer(_for_signing(made, key.public_key()).sign(by.key, None), key)


def leaf(
    party: Party, key: Ed25519PublicKey, by: Issuer, now: datetime, life: timedelta, hosts: Sequence[str] = ()
) -> x509.Certificate:
    """Make a party's certificate; a broker has `hosts`, the names and addresses that it is reached by."""
    life = min(life, by.certificate.not_valid_after_utc - now)
    made = _builder(party.subject(), by.certificate.subject, key, now, life)
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(_usage(signs_others=False), critical=True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    made = made.add_extension(_issued_by(by), critical=False)
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if party.role == "broker":
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        made = made.add_extension(x509.SubjectAlternativeName(list(_alternatives(hosts))), critical=False)
    made = made.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return made.sign(by.key, None)


def revocations(
    revoked: Iterable[tuple[int, datetime]], by: Issuer, number: int, now: datetime, life: timedelta
) -> x509.CertificateRevocationList:
    """Make the list of certificates, by serial number and since when, that are valid no longer."""
    made = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject)
    made = made.last_update(now - _SKEW).next_update(now + life)
    made = made.add_extension(x509.CRLNumber(number), critical=False)
    made = made.add_extension(_issued_by(by), critical=False)
    for serial, since in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
        made = made.add_revoked_certificate(entry.build())
    return made.sign(by.key, None)


def _authority(fleet: str, which: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, fleet),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Resonator {which} authority"),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(now - _SKEW).not_valid_after(now + life)


def _for_signing(made: x509.CertificateBuilder, key: Ed25519PublicKey) -> x509.CertificateBuilder:
    made = made.add_extension(_usage(signs_others=True), critical=True)
    return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        encipher_only=False,
        decipher_only=False,
    )


def _issued_by(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    own = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _alternatives(hosts: Sequence[str]) -> Iterable[x509.GeneralName]:
    if not hosts:
        raise InputInvalid("a broker's certificate names at least one host: --san broker.example.org")
    for host in hosts:
        try:
            yield x509.IPAddress(ip_address(host))
            continue
        except ValueError:
            pass
        try:
            yield x509.DNSName(host)
        except ValueError:
            raise InputInvalid(f"--san {host!r} is neither a host's name in ASCII nor an address") from None
