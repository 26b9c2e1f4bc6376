"""Somebody on the bus, as a certificate names him and a broker knows him."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cryptography import x509
from cryptography.x509.oid import NameOID

from resonator.errors import InputInvalid
from resonator.ids import NAME_RULE, is_name

Role = Literal["authority", "broker", "hub", "device", "operator", "submitter", "viewer"]
"""What a party may do: the last three are people's, each of whom may do less than the one before."""
USERS: tuple[Role, ...] = ("operator", "submitter", "viewer")
_PLACES: dict[Role, str] = {"authority": "ca", "broker": "broker", "hub": "hub", "device": "dev"}
MAX_COMMON_NAME = 64
"""RFC 5280, upper bound ub-common-name."""


class CertificateInvalid(InputInvalid):
    """A certificate is none of this fleet's, or says what no certificate of this fleet does."""


@dataclass(frozen=True)
class Party:
    """A device, hub, broker, authority or user of a site.

    `user`, the common name of its certificate, is where its topics lie, so that a broker needs one rule for
    all devices: `{site}/dev/{name}` may write to `resonator/v1/{site}/dev/{name}/up/#`.
    """

    role: Role
    site: str
    name: str

    def __post_init__(self) -> None:
        for what, text in (("site", self.site), (self.role, self.name)):
            if not is_name(text):
                raise InputInvalid(f"{what} {text!r} is not a name: {NAME_RULE}")
        if len(self.user) > MAX_COMMON_NAME:
            raise InputInvalid(
                f"{self.user} has {len(self.user)} characters, a certificate holds {MAX_COMMON_NAME}: "
                "take a shorter name for the site or for what is there"
            )

    @property
    def user(self) -> str:
        """The name that brokers know it by."""
        return f"{self.site}/{_PLACES.get(self.role, 'client')}/{self.name}"

    def subject(self) -> x509.Name:
        """Return what its certificate calls it: the role as the unit, the user as the common name."""
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, self.role),
                x509.NameAttribute(NameOID.COMMON_NAME, self.user),
            ]
        )


def party_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> Party:
    """Return whom a certificate or request names; raises CertificateInvalid where it is nobody of ours."""
    unit = _only(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)
    parts = _only(certificate, NameOID.COMMON_NAME).split("/")
    role = next((role for role in get_args(Role) if role == unit), None)
    if role is not None and len(parts) == 3:
        party = Party(role, parts[0], parts[2])
        if party.subject() == certificate.subject:
            return party
    raise CertificateInvalid(
        f"a certificate of {certificate.subject.rfc4514_string()[:100]!r} names nobody here"
    )


def _only(certificate: x509.Certificate | x509.CertificateSigningRequest, what: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(what)
    return str(found[0].value) if len(found) == 1 else ""
