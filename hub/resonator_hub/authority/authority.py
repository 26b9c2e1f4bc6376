"""The authority's folder: keys that never leave it, what it has issued, and what it has revoked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from getpass import getuser
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from resonator.errors import InputInvalid, Refused
from resonator.trust import Party, Role
from resonator.trust.credentials import AUTHORITY, KEY, REVOCATIONS
from resonator.trust.invitation import Invitation
from resonator.trust.keys import (
    make_place,
    read_key,
    replace,
    replace_certificate,
    write_identity,
    write_key,
)
from resonator_hub.authority import certificate as made
from resonator_hub.authority.brokers import Lists, refresh
from resonator_hub.authority.certificate import Issuer
from resonator_hub.authority.register import Entry, Register
from resonator_hub.authority.tokens import Tokens

ROOT, ISSUING, IDENTITIES = "root", "issuing", "identities"
REGISTER, TOKENS = "issued.json", "tokens.json"
LIFE = timedelta(days=90)
"""How long a certificate is valid; boxes renew theirs at two thirds of it."""
DOOR_LIFE = timedelta(days=365)
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
            write_key(folder / f"{name}.key", issuer.key, passphrase)
        (folder / AUTHORITY).write_bytes(_chain(below.certificate, root.certificate))
        authority = cls(folder, below, Register())
        authority.keep()

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
            key = read_key(folder / f"{ISSUING}.key", passphrase)
            yield cls(folder, Issuer(certificate, key), Register.read(folder / REGISTER))
        finally:
            os.close(lock)

    def issue(
        self, party: Party, key: Ed25519PublicKey, life: timedelta = LIFE, hosts: Sequence[str] = ()
    ) -> bytes:
        """Return a party's certificate with the issuing one, in PEM, and enter it.

        Raises Refused while another certificate of the same name is valid.
        """
        if self._valid(party.user):
            raise Refused(f"{party.user} has a valid certificate: `resonator ca renew` or `ca revoke` it")
        return self._issue(party, key, life, tuple(hosts))

    def enrol(self, party: Party, folder: Path, life: timedelta = LIFE, hosts: Sequence[str] = ()) -> None:
        """Make a key and certificate for a party in a folder of its own; raises Refused as `issue` does."""
        make_place(folder)
        key = Ed25519PrivateKey.generate()
        chain = self.issue(party, key.public_key(), life, hosts)
        write_identity(folder, key, chain, (self.folder / AUTHORITY).read_bytes())

    def renew(self, party: Party, key: Ed25519PublicKey, life: timedelta = LIFE) -> bytes:
        """Return the next certificate of a party, as `issue` does; raises Refused where it has none."""
        held = self._valid(party.user)
        if not held:
            raise Refused(f"{party.user} has no valid certificate to renew")
        return self._issue(party, key, life, held[-1].hosts)

    def renew_in(self, folder: Path, party: Party, life: timedelta = LIFE) -> None:
        """Give the key in an identity's folder a new certificate; raises Refused as `renew` does."""
        key = read_key(folder / KEY, None)
        replace_certificate(folder, self.renew(party, key.public_key(), life))

    def invite(self, site: str, uses: int, life: timedelta) -> Invitation:
        """Make a token with which `uses` boxes of a site can enrol, for as long as it lives."""
        root = x509.load_pem_x509_certificate((self.folder / f"{ROOT}.crt").read_bytes())
        invitation = Invitation.new(site, root.fingerprint(hashes.SHA256()).hex())
        tokens = Tokens.read(self.folder / TOKENS)
        tokens.add(invitation, uses, _now() + life)
        replace(self.folder / TOKENS, tokens.to_json())
        return invitation

    def admit(self, token: str, party: Party, key: Ed25519PublicKey) -> bytes:
        """Issue a certificate for a token, named by its digest, and use that up; raises Refused."""
        tokens = Tokens.read(self.folder / TOKENS)
        tokens.spend(token, party.site, _now())
        certificate = self.issue(party, key)
        replace(self.folder / TOKENS, tokens.to_json())
        return certificate

    def introduce(self, folder: Path) -> None:
        """Put a key, and a certificate that says it speaks for the authority, into a folder."""
        key = Ed25519PrivateKey.generate()
        door = Party("authority", "fleet", "door")
        leaf = made.leaf(door, key.public_key(), self._issuer, _now(), DOOR_LIFE)
        write_identity(
            folder, key, _chain(leaf, self._issuer.certificate), (self.folder / AUTHORITY).read_bytes()
        )

    def revoke(self, name: str) -> list[Entry]:
        """Revoke all certificates of a user name, or of a party's name where only one has it; return them."""
        entries = self.find(name)
        self.register.revoke(entries, _now(), getuser())
        self.keep()
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

    def held_by(self, user: str) -> int:
        """Return how many valid certificates a user name has."""
        return len(self._valid(user))

    def _valid(self, user: str) -> list[Entry]:
        return [entry for entry in self.register.valid(_now()) if entry.party.user == user]

    def _issue(self, party: Party, key: Ed25519PublicKey, life: timedelta, hosts: tuple[str, ...]) -> bytes:
        leaf = made.leaf(party, key, self._issuer, _now(), life, hosts)
        self.register.add(leaf, _now(), hosts)
        self.keep()
        return _chain(leaf, self._issuer.certificate)

    def lists(self) -> Lists:
        """Return what a broker has to know of the fleet."""
        revoked = (self.folder / REVOCATIONS).read_bytes()
        brokers = {one.party.user: one.party for one in self.register.valid(_now()) if one.role == "broker"}
        overseers = self.users("operator", "viewer")
        return Lists(self.users("hub"), overseers, [*brokers.values()], revoked)

    def place(self, user: str) -> Path:
        """Return where the identity of a user name goes, unless somewhere else was asked for."""
        return self.folder / IDENTITIES / user

    def keep(self) -> None:
        """Write the register and a fresh list of what is revoked; tell the brokers below this folder."""
        replace(self.folder / REGISTER, self.register.to_json())
        now = _now()
        revoked = [
            (one.number, one.revoked) for one in self.register if one.revoked and one.valid_until > now
        ]
        crl = made.revocations(revoked, self._issuer, self._next_number(), now, CRL_LIFE)
        replace(self.folder / REVOCATIONS, crl.public_bytes(Encoding.PEM))
        for user in self.users("broker"):
            refresh(self.place(user), self.lists())

    def _next_number(self) -> int:
        """Return a number for a list, higher than that of the list before it."""
        now, path = int(_now().timestamp()), self.folder / REVOCATIONS
        if not path.exists():
            return now
        before = x509.load_pem_x509_crl(path.read_bytes()).extensions.get_extension_for_class(x509.CRLNumber)
        return max(now, before.value.crl_number + 1)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def _chain(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
