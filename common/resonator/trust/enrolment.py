"""How a box gets its first certificate: what it and the authority say to each other, over TLS.

The authority begins with its certificates, which the box compares with the fingerprint in its token; what
speaks has to hold a certificate of the role `authority` below them. Only then does the box send its token
and a signing request (RFC 2986), by which it proves that it has the key. Frames are msgpack maps, each after
its length in four bytes.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import msgpack
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from resonator.errors import BusUnreachable, InputInvalid, Refused
from resonator.trust.invitation import Invitation
from resonator.trust.keys import signing_request
from resonator.trust.party import Party, party_of

PORT = 8884
MAX_FRAME = 16 * 1024
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Enrolled:
    """A certificate with those above it, and the authority's, in PEM."""

    certificate: bytes
    authority: bytes


async def enrol(
    host: str, port: int, invitation: Invitation, party: Party, key: Ed25519PrivateKey
) -> Enrolled:
    """Ask the authority at an address for the certificate of `party`, whose key is `key`.

    Raises BusUnreachable where nobody answers, InputInvalid for somebody who is not the authority that the
    token names, and Refused with the authority's reason.
    """
    try:
        return await asyncio.wait_for(_enrol(host, port, invitation, party, key), PATIENCE_S)
    except (OSError, EOFError) as error:
        raise BusUnreachable(f"no authority answers at {host}:{port} ({error or 'it hung up'})") from None
    except asyncio.TimeoutError:
        raise BusUnreachable(f"no authority answers at {host}:{port} within {PATIENCE_S:g} s") from None


async def _enrol(
    host: str, port: int, invitation: Invitation, party: Party, key: Ed25519PrivateKey
) -> Enrolled:
    reader, writer = await asyncio.open_connection(host, port, ssl=_unverified())
    try:
        hello = await read_frame(reader)
        authority = _checked(hello.get("authority"), writer.get_extra_info("ssl_object"), invitation)
        writer.write(frame({"secret": invitation.secret, "request": signing_request(party, key)}))
        answer = await read_frame(reader)
    finally:
        writer.close()
    if isinstance(certificate := answer.get("certificate"), bytes):
        return Enrolled(certificate, authority)
    raise Refused(f"the authority refuses: {str(answer.get('refused', 'no reason given'))[:500]}")


def _unverified() -> ssl.SSLContext:
    """Return a context that trusts anybody: whom to trust is only known from what the other side shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _checked(shown: object, connection: Any, invitation: Invitation) -> bytes:
    """Return the authority's certificates, if the token names it and the connection ends there."""
    authority = shown if isinstance(shown, bytes) else b""
    try:
        issuing, root = x509.load_pem_x509_certificates(authority)
        own = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        issuing.verify_directly_issued_by(root)
        own.verify_directly_issued_by(issuing)
        speaks_for_it = party_of(own).role == "authority"
    except Exception:  # cryptography has many for what is no certificate, not of one family
        speaks_for_it = False
    if not speaks_for_it or root.fingerprint(hashes.SHA256()).hex() != invitation.root:
        raise InputInvalid("whoever answers there is not the authority that the token names")
    if own.not_valid_after_utc < datetime.now(timezone.utc):
        raise InputInvalid("the authority's certificate has expired, or this box's clock is wrong")
    return authority


def frame(content: dict[str, Any]) -> bytes:
    """Return a map as it goes over the connection."""
    data: bytes = msgpack.packb(content)
    return len(data).to_bytes(4, "big") + data


async def read_frame(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Read a map; raises EOFError for the end, or for what is none or larger than MAX_FRAME."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_FRAME:
        raise EOFError(f"a frame of {size} bytes")
    try:
        content = msgpack.unpackb(await reader.readexactly(size), max_map_len=16, max_array_len=16)
    except (ValueError, msgpack.UnpackException, RecursionError):
        raise EOFError("something that is no frame") from None
    if not isinstance(content, dict):
        raise EOFError("something that is no frame")
    return content
