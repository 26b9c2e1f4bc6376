"""A broker's folder: its identity, its configuration, and the lists that change with the fleet."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from resonator.errors import InputInvalid
from resonator.trust import Party
from resonator.trust.credentials import REVOCATIONS
from resonator.trust.keys import replace
from resonator_hub.authority import mosquitto

log = structlog.get_logger(__name__)
STARTING_S = 2.0
"""How long a broker may take until it handles signals."""


@dataclass(frozen=True)
class Lists:
    """User names of hubs and of those who see every job, the brokers, and the list of revocations (PEM)."""

    hubs: Sequence[str]
    overseers: Sequence[str]
    brokers: Sequence[Party]
    revoked: bytes


def configure(folder: Path, lists: Lists, host: str, port: int, account: str) -> Path:
    """Write all that a Mosquitto needs beside its identity in `folder`; return its configuration's path."""
    (folder / mosquitto.DATA).mkdir(mode=0o700, exist_ok=True)
    _write(folder, lists)
    config = folder / mosquitto.CONFIG
    config.write_text(mosquitto.config(folder, host, port, account))
    return config


def give(folder: Path, account: str | None) -> None:
    """Have a folder and all in it belong to an account; raises InputInvalid where that cannot be."""
    if account is None:
        return
    try:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, account)
    except (LookupError, PermissionError) as error:
        raise InputInvalid(f"--user {account}: the files cannot be given to that account ({error})") from None


def refresh(folder: Path, lists: Lists) -> None:
    """Write the lists of a broker that was configured in `folder`, if any, and have it read them."""
    if not (folder / mosquitto.CONFIG).is_file():
        return
    try:
        _write(folder, lists)
        _have_read(folder)
    except OSError as error:
        log.warning(f"the broker in {folder} does not know of this change", reason=str(error))


def _write(folder: Path, lists: Lists) -> None:
    text = mosquitto.rules(lists.hubs, lists.overseers, lists.brokers)
    replace(folder / REVOCATIONS, lists.revoked)
    replace(folder / mosquitto.RULES, text.encode())


def _have_read(folder: Path) -> None:
    """Send a SIGHUP to the broker that runs with the files in `folder`, if one does."""
    try:
        process = int((folder / mosquitto.PID).read_text())
        runs = Path(f"/proc/{process}/comm").read_text().strip() == "mosquitto"
    except (FileNotFoundError, ValueError):
        return
    deadline = time.monotonic() + STARTING_S
    while runs and not _expects_hangup(process):
        if time.monotonic() > deadline:
            raise OSError(f"process {process} does not listen to SIGHUP")
        time.sleep(0.01)
    if runs:
        os.kill(process, signal.SIGHUP)


def _expects_hangup(process: int) -> bool:
    """Return whether a SIGHUP is handled: a broker that is still starting would die of it."""
    status = Path(f"/proc/{process}/status").read_text()
    handled = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(handled >> (signal.SIGHUP - 1) & 1)
