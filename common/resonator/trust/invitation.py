"""A token with which a box asks for its first certificate: text that somebody carries from hub to box."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from resonator.errors import InputInvalid
from resonator.ids import is_name

_TEXT = re.compile(r"rt1:([A-Za-z0-9._-]{1,63}):([A-Za-z0-9_-]{22}):([0-9a-f]{64})")


@dataclass(frozen=True)
class Invitation:
    """A secret that is good for a site, and the SHA-256 of the root certificate to trust, in hexadecimal."""

    site: str
    secret: str
    root: str

    @classmethod
    def new(cls, site: str, root: str) -> Invitation:
        """Make one with a secret of 128 bits."""
        return cls(site, secrets.token_urlsafe(16), root)

    def __str__(self) -> str:
        return f"rt1:{self.site}:{self.secret}:{self.root}"

    @property
    def digest(self) -> str:
        """What the authority keeps of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def parse(text: str) -> Invitation:
    """Read what `str` wrote; raises InputInvalid."""
    found = _TEXT.fullmatch(text.strip())
    if found is None or not is_name(found[1]):
        raise InputInvalid("that is no token; `resonator enroll-token` prints one that begins with rt1:")
    return Invitation(*found.groups())
