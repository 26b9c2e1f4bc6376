"""The authority's folder: keys that never leave it, what it has issued, and what it has revoked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
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
from resonator.trust import Party, Role
from resonator.trust.credentials import AUTHORITY, CERTIFICATE, KEY
from resonator_hub.authority import certificate as made
from resonator_hub.authority.certificate import Issuer
from resonator_hub.authority.mosquitto import REVOCATIONS
from resonator_hub.authority.register import Entry, Register

ROOT, ISSUING = "root", "issuing"
REGISTER = "issued.json"
LIFE = timedelta(days=90)
"""How long a certificate is valid; boxes renew theirs at two thirds of it."""
CRL_LIFE = timedelta(days=90)
"""A broker that is given no newer list for so long lets nobody in."""


class Authority:
    """A root, the issuing authority below it, and the register of what that has issued."""

    def __init__(self, folder: Path, issuer: Issuer, register: Register) -> None:
        self.folder = folder
        self.register = register
        self._issuer = issuer

    @classmethod
    def create(cls, folder: Path, fleet: str, passphrase: bytes | None) -> None:
        """Make the keys and certificates of a new fleet in `folder`; raises Refused where there are some."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Refused(f"{folder} is not empty; an authority is made once, in a folder of its own")
        folder.chmod(0o700)
        root = made.root(fleet, _now())
        below = made.issuing(fleet, root, _now())
        for name, issuer in ((ROOT, root), (ISSUING, below)):
            (folder / f"{name}.crt").write_bytes(issuer.certificate.public_bytes(Encoding.PEM))
            _write_key(folder / f"{name}.key", issuer.key, passphrase)
        (folder / AUTHORITY).write_bytes(_chain(below.certificate, root.certificate))
        authority = cls(folder, below, Register())
        authority._keep()

    @classmethod
    @contextmanager
    def open(cls, folder: Path, passphrase: bytes | None) -> Iterator[Authority]:
        """Hold an authority, for oneself; raises InputInvalid for another folder or passphrase."""
        if not (folder / f"{ISSUING}.key").is_file():
            raise InputInvalid(f"{folder} is no authority; make one with `resonator ca init --dir {folder}`")
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            certificate = x509.load_pem_x509_certificate((folder / f"{ISSUING}.crt").read_bytes())
            key = _read_key(folder / f"{ISSUING}.key", passphrase)
            yield cls(folder, Issuer(certificate, key), Register.read(folder / REGISTER))
        finally:
            os.close(lock)

    def issue(
        self, party: Party, key: Ed25519PublicKey, life: timedelta = LIFE, hosts: Sequence[str] = ()
    ) -> bytes:
        """Return a party's certificate with the issuing one, in PEM, and enter it.

        Raises Refused while another certificate of the same name is valid.
        """
        if self._held_by(party.user):
            raise Refused(f"{party.user} has a valid certificate: `resonator ca renew` or `ca revoke` it")
        return self._issue(party, key, life, tuple(hosts))

    def enrol(self, party: Party, folder: Path, life: timedelta = LIFE, hosts: Sequence[str] = ()) -> None:
        """Make a key and certificate for a party in a folder of its own; raises Refused as `issue` does."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Refused(f"{folder} is not empty; give the identity a folder of its own with --out")
        key = Ed25519PrivateKey.generate()
        chain = self.issue(party, key.public_key(), life, hosts)
        _write_key(folder / KEY, key, None)
        (folder / CERTIFICATE).write_bytes(chain)
        (folder / AUTHORITY).write_bytes((self.folder / AUTHORITY).read_bytes())

    def renew(self, folder: Path, party: Party, life: timedelta = LIFE) -> None:
        """Give the key in an identity's folder a new certificate; raises Refused for one that was revoked."""
        held = self._held_by(party.user)
        if not held:
            raise Refused(f"{party.user} has no valid certificate to renew")
        key = _read_key(folder / KEY, None)
        chain = self._issue(party, key.public_key(), life, held[-1].hosts)
        _replace(folder / CERTIFICATE, chain)

    def revoke(self, name: str) -> list[Entry]:
        """Revoke all certificates of a user name, or of a party's name where only one has it; return them."""
        entries = self.find(name)
        self.register.revoke(entries, _now())
        self._keep()
        return entries

    def find(self, name: str) -> list[Entry]:
        """Return the valid certificates of a user name such as lab/dev/box, or box; raises Refused."""
        found = [entry for entry in self.register.valid(_now()) if name in (entry.party.user, entry.name)]
        users = sorted({entry.party.user for entry in found})
        if len(users) != 1:
            which = f"there are several: {', '.join(users)}" if users else "nobody has that name"
            raise Refused(f"no one valid certificate is for {name!r}; {which}")
        return found

    def users(self, *roles: Role) -> list[str]:
        """Return the user names that have a valid certificate of one of these roles, sorted."""
        return sorted({one.party.user for one in self.register.valid(_now()) if one.role in roles})

    def _held_by(self, user: str) -> list[Entry]:
        return [entry for entry in self.register.valid(_now()) if entry.party.user == user]

    def _issue(self, party: Party, key: Ed25519PublicKey, life: timedelta, hosts: tuple[str, ...]) -> bytes:
        leaf = made.leaf(party, key, self._issuer, _now(), life, hosts)
        self.register.add(leaf, _now(), hosts)
        self._keep()
        return _chain(leaf, self._issuer.certificate)

    def _keep(self) -> None:
        """Write the register, and after it a fresh list of what is revoked."""
        _replace(self.folder / REGISTER, self.register.to_json())
        revoked = [(one.number, one.revoked) for one in self.register if one.revoked is not None]
        now = _now()
        crl = made.revocations(revoked, self._issuer, int(now.timestamp()), now, CRL_LIFE)
        _replace(self.folder / REVOCATIONS, crl.public_bytes(Encoding.PEM))


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def _chain(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def _write_key(path: Path, key: Ed25519PrivateKey, passphrase: bytes | None) -> None:
    encryption: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    )
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)


def _read_key(path: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
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


def _replace(path: Path, data: bytes) -> None:
    """Write a file that others may read meanwhile."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.replace(path)
