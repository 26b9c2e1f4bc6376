"""Whose certificates are valid no longer: the list that a fleet's authority signs (CRL, RFC 5280)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from typing_extensions import Self

from resonator.trust.party import CertificateInvalid


@dataclass(frozen=True)
class Revocations:
    """Serial numbers of certificates that were revoked; a later list has a higher `number`."""

    number: int = 0
    serials: frozenset[int] = frozenset()
    data: bytes = b""
    """The list itself, in PEM."""

    @classmethod
    def read(cls, data: bytes, issuers: Sequence[x509.Certificate]) -> Self:
        """Read a list in PEM; raises CertificateInvalid for one that none of the `issuers` has signed."""
        try:
            found = x509.load_pem_x509_crl(data)
            number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            serials = frozenset(one.serial_number for one in found)
            signed = any(_signed_by(found, issuer) for issuer in issuers)
        except Exception as error:  # cryptography has many for what is no list, not of one family
            raise CertificateInvalid(f"the list of revocations cannot be read: {error}") from None
        if not signed:
            raise CertificateInvalid("the list of revocations is not of this fleet's authority")
        return cls(number, serials, data)


def _signed_by(revocations: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    return revocations.issuer == issuer.subject and revocations.is_signature_valid(key)  # type: ignore[arg-type]
