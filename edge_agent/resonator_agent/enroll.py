"""`resonator agent enroll`: this box makes its key and gets a certificate for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import Annotated

import platformdirs
import structlog
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from resonator.bus.backoff import Backoff
from resonator.bus.url import parse_broker_url
from resonator.cli.exits import say
from resonator.errors import BusUnreachable, InputInvalid
from resonator.trust import Party, enrolment, invitation
from resonator.trust.invitation import Invitation
from resonator.trust.keys import make_place, write_identity

log = structlog.get_logger(__name__)


def place(site: str, name: str) -> Path:
    """Return where a box keeps its identity unless told otherwise."""
    return platformdirs.user_state_path("resonator") / "identities" / site / name


def enroll(
    token: Annotated[str, typer.Option(metavar="TOKEN", help="What `resonator enroll-token` printed.")],
    hub: Annotated[str, typer.Option(metavar="HOST[:PORT]", help="Where the authority enrols boxes.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="This box's name; its host name by default.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where its key and certificate go.")
    ] = None,
) -> None:
    """Get this box its certificate, with a token from the fleet's authority; the key never leaves the box."""
    invited = invitation.parse(token)
    party = Party("device", invited.site, name or socket.gethostname().partition(".")[0])
    folder = identity or place(party.site, party.name)
    enrol_in(folder, invited, party, *parse_address(hub))
    say(f"{party.user} is enrolled, its identity is in {folder}")


def enrol_in(folder: Path, invited: Invitation, party: Party, host: str, port: int) -> None:
    """Make a key in a folder and get a certificate for it; raises as `resonator.trust.enrolment.enrol` does.

    Where that fails nothing is left of the folder.
    """
    make_place(folder)
    key = Ed25519PrivateKey.generate()
    try:
        enrolled = asyncio.run(enrolment.enrol(host, port, invited, party, key))
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    write_identity(folder, key, enrolled.certificate, enrolled.authority)


def enrol_patiently(folder: Path, invited: Invitation, party: Party, host: str, port: int) -> None:
    """Do as `enrol_in` does, but wait for an authority that does not answer yet: boxes may start first."""
    backoff = Backoff()

    def enrolled() -> bool:
        try:
            enrol_in(folder, invited, party, host, port)
        except BusUnreachable as error:
            log.warning(f"{error}; trying again")
            return False
        return True

    while not enrolled():
        time.sleep(backoff.next())


def parse_address(text: str) -> tuple[str, int]:
    """Read HOST[:PORT], an IPv6 address in brackets; a URL is a broker's. Raises InputInvalid."""
    if "://" in text:
        return parse_broker_url(text).host, enrolment.PORT
    host, colon, port = text.rpartition(":") if text.rpartition("]")[2] else (text, "", "")
    if not colon:
        host, port = text, str(enrolment.PORT)
    if not host.strip("[]") or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputInvalid(f"--hub {text!r} is not an address such as hub.example.org:{enrolment.PORT}")
    return host.strip("[]"), int(port)
