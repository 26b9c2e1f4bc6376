"""How boxes keep their place in the fleet: the next certificate, and who was put out of it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from resonator.messages.base import Count, Message

MAX_REQUEST = 4 * 1024
MAX_CHAIN = 16 * 1024
MAX_REVOCATIONS = 2 * 1024 * 1024


class CertificateRequest(Message):
    """A device asks for its next certificate with a signing request (RFC 2986, DER) by the key it has."""

    wire: ClassVar[str] = "certificate.request"
    request: Annotated[bytes, Field(max_length=MAX_REQUEST)]


class CertificateIssued(Message):
    """Answers `certificate.request`: the certificate and those above it, in PEM."""

    wire: ClassVar[str] = "certificate.issued"
    chain: Annotated[bytes, Field(max_length=MAX_CHAIN)]


class RevocationsQuery(Message):
    """A device asks for a list of revocations later than `number`."""

    wire: ClassVar[str] = "revocations.query"
    number: Count = 0


class RevocationsKnown(Message):
    """Answers `revocations.query`: the authority's list (RFC 5280, PEM), None where there is no later one."""

    wire: ClassVar[str] = "revocations.known"
    list: Annotated[bytes, Field(max_length=MAX_REVOCATIONS)] | None = None
