"""Private keys on disk, and the folders that they lie in."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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
