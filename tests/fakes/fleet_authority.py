"""A fleet's authority in a folder of its own, and a real Mosquitto that it configured."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from getpass import getuser
from pathlib import Path

import pytest

from fakes.brokers import START_S, find_mosquitto, free_port
from resonator.trust import Credentials, Party
from resonator_hub.authority import Authority
from resonator_hub.authority.authority import LIFE
from resonator_hub.authority.brokers import configure

HUB, BROKER = Party("hub", "lab", "main"), Party("broker", "lab", "cloud")
BOX, OTHER = Party("device", "lab", "box"), Party("device", "lab", "other")
ANN, BOB = Party("submitter", "lab", "ann"), Party("submitter", "lab", "bob")
OLGA, VIEWER = Party("operator", "lab", "olga"), Party("viewer", "lab", "vera")
HOST = "127.0.0.1"


class Fleet:
    """An authority, the identities it gave out, and the folder of its broker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ca"
        self._identities = folder / "identities"
        Authority.create(self.folder, "Test fleet", None)
        for party in (HUB, BOX, OTHER, ANN, BOB, OLGA, VIEWER):
            self.enrol(party)
        self.broker = self.place(BROKER)
        with Authority.open(self.folder, None) as authority:
            authority.enrol(BROKER, self.broker, LIFE, [HOST])

    def enrol(self, party: Party, life: timedelta = LIFE) -> None:
        with Authority.open(self.folder, None) as authority:
            authority.enrol(party, self.place(party), life)

    def revoke(self, party: Party) -> None:
        with Authority.open(self.folder, None) as authority:
            authority.revoke(party.user)

    def tls(self, party: Party) -> ssl.SSLContext:
        return Credentials.load(self.place(party)).context()

    def configure(self, port: int) -> Path:
        """Write the broker's files and return the path of its configuration."""
        with Authority.open(self.folder, None) as authority:
            return configure(self.broker, authority.lists(), HOST, port, getuser())

    def place(self, party: Party) -> Path:
        return self._identities / party.user


@contextlib.asynccontextmanager
async def guarded(fleet: Fleet, *, captured: bool = False) -> AsyncIterator[str]:
    """A running Mosquitto that lets only the fleet in; yields its address.

    One that is `captured` lets everybody in it speak and listen everywhere, as whoever took it over can.
    """
    program = find_mosquitto()
    port = free_port()
    config = fleet.configure(port)
    text = config.read_text()
    if captured:
        text = "".join(line for line in text.splitlines(True) if not line.startswith("acl_file "))
    config.write_text(text + "log_dest stderr\nlog_type all\n")
    process = await asyncio.create_subprocess_exec(
        program, "-c", str(config), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    assert process.stderr is not None
    said = b""
    while line := await asyncio.wait_for(process.stderr.readline(), START_S):
        said += line
        if b"running" in line:
            break
    else:
        pytest.fail(f"mosquitto does not start with the configuration: {said.decode()}")
    drain = asyncio.create_task(process.stderr.read())
    try:
        yield f"mqtts://{HOST}:{port}"
    finally:
        process.terminate()
        await process.wait()
        await drain
