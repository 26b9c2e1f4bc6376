"""The passphrase that an authority's keys may be protected by: from the environment, or as it is typed."""

from __future__ import annotations

import os
import sys
from getpass import getpass
from pathlib import Path

from resonator.errors import InputInvalid
from resonator_hub.authority.authority import ISSUING

PASSPHRASE = "RESONATOR_CA_PASSPHRASE"
_ENCRYPTED = b"ENCRYPTED"


def passphrase_of(folder: Path) -> bytes | None:
    """Return the passphrase of an authority; None where its keys have none. Raises InputInvalid."""
    key = folder / f"{ISSUING}.key"
    protected = key.is_file() and _ENCRYPTED in key.read_bytes()
    return ask(new=False) if protected else None


def ask(*, new: bool) -> bytes:
    """Return a passphrase, typed twice if it is `new`; raises InputInvalid."""
    if given := os.environ.get(PASSPHRASE):
        return given.encode()
    if not sys.stdin.isatty():
        raise InputInvalid(f"the authority's keys want a passphrase: set {PASSPHRASE}, or use a terminal")
    typed = getpass("Passphrase of the authority: ")
    if not typed:
        raise InputInvalid("a passphrase has at least one character")
    if new and getpass("The same again: ") != typed:
        raise InputInvalid("the passphrases differ")
    return typed.encode()
