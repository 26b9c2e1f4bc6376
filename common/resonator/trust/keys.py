"""Private keys on disk, and the folders that they lie in."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from resonator.errors import InputInvalid, Refused
from resonator.trust.credentials import AUTHORITY, CERTIFICATE, KEY
from resonator.trust.party import CertificateInvalid, Party, party_of


def make_place(folder: Path) -> None:
    """Make a folder for an identity; raises Refused where something is in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Refused(f"{folder} is not empty; give the identity a folder of its own")


def write_identity(folder: Path, key: Ed25519PrivateKey, certificate: bytes, authority: bytes) -> None:
    """Write what `Credentials.load` reads; certificates in PEM."""
    write_key(folder / KEY, key)
    (folder / CERTIFICATE).write_bytes(certificate)
    (folder / AUTHORITY).write_bytes(authority)


def signing_request(party: Party, key: Ed25519PrivateKey) -> bytes:
    """Return what asks for the certificate of a party and proves that its key is there (RFC 2986, DER)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(party.subject())
    return builder.sign(key, None).public_bytes(Encoding.DER)


def read_request(data: bytes) -> tuple[Party, Ed25519PublicKey]:
    """Read what `signing_request` wrote; raises CertificateInvalid for what is none, or signed by another."""
    try:
        request = x509.load_der_x509_csr(data)
        valid, key = request.is_signature_valid, request.public_key()
    except Exception:  # cryptography has many for what is no request, not of one family
        raise CertificateInvalid("the signing request cannot be read") from None
    if not valid or not isinstance(key, Ed25519PublicKey):
        raise CertificateInvalid("the signing request is not signed by the Ed25519 key in it")
    return party_of(request), key


def replace_certificate(folder: Path, chain: bytes) -> None:
    """Put a new certificate of the same party and key in the place of an identity's (PEM).

    Raises CertificateInvalid for another's.
    """
    held = x509.load_pem_x509_certificates((folder / CERTIFICATE).read_bytes())[0]
    try:
        new = x509.load_pem_x509_certificates(chain)[0]
        same = new.public_key() == held.public_key() and party_of(new) == party_of(held)
    except ValueError:
        raise CertificateInvalid("what came is not a certificate in PEM") from None
    if not same:
        raise CertificateInvalid("the new certificate is for another party or key")
    replace(folder / CERTIFICATE, chain)


def replace(path: Path, data: bytes) -> None:
    """Write a file that others may read meanwhile."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_key(path: Path, key: Ed25519PrivateKey, passphrase: bytes | None = None) -> None:
    """Write a key for its owner alone; raises FileExistsError rather than replace one."""
    encryption: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    )
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)


def read_key(path: Path, passphrase: bytes | None = None) -> Ed25519PrivateKey:
    """Read a key; raises InputInvalid for what is none, or another passphrase."""
    try:
        key = load_pem_private_key(path.read_bytes(), passphrase)
    except TypeError:
        wanted = "is" if passphrase is None else "is not"
        raise InputInvalid(f"{path} {wanted} protected by a passphrase") from None
    except ValueError:
        raise InputInvalid(f"{path} is no key, or the passphrase is wrong") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputInvalid(f"{path} is not an Ed25519 key")
    return key
