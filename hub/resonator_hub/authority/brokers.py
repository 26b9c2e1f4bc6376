"""A broker's folder: its identity, its configuration, and the lists that change with the fleet."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from resonator.trust.credentials import REVOCATIONS
from resonator.trust.keys import replace
from resonator_hub.authority import mosquitto

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Lists:
    """User names of the hubs and of those who see every job, and the list of revocations (PEM)."""

    hubs: Sequence[str]
    overseers: Sequence[str]
    revoked: bytes


def configure(folder: Path, lists: Lists, host: str, port: int, account: str) -> Path:
    """Write all that a Mosquitto needs beside its identity in `folder`; return its configuration's path."""
    (folder / mosquitto.DATA).mkdir(mode=0o700, exist_ok=True)
    _write(folder, lists)
    config = folder / mosquitto.CONFIG
    config.write_text(mosquitto.config(folder, host, port, account))
    return config


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
    replace(folder / REVOCATIONS, lists.revoked)
    replace(folder / mosquitto.RULES, mosquitto.rules(lists.hubs, lists.overseers).encode())


def _have_read(folder: Path) -> None:
    """Send a SIGHUP to the broker that runs with the files in `folder`, if one does."""
    try:
        process = int((folder / mosquitto.PID).read_text())
        runs = Path(f"/proc/{process}/comm").read_text().strip() == "mosquitto"
    except (FileNotFoundError, ValueError):
        return
    if runs:
        os.kill(process, signal.SIGHUP)
