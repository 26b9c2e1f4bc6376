"""`resonator ca` and `resonator broker`: keep a fleet's authority, and the doors of its brokers."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from getpass import getpass, getuser
from pathlib import Path
from typing import Annotated

import platformdirs
import typer
from rich.table import Table

from resonator.bus.url import TLS_PORT
from resonator.cli import logs
from resonator.cli.exits import say
from resonator.cli.options import Json, JsonLog
from resonator.cli.output import console, print_json
from resonator.errors import InputInvalid
from resonator.settings import DEFAULT_SITE
from resonator.trust import Credentials, Party, Role, enrolment
from resonator.trust.party import USERS
from resonator_hub.authority import mosquitto
from resonator_hub.authority.authority import ISSUING, LIFE, Authority
from resonator_hub.authority.enrolling import Door

PASSPHRASE = "RESONATOR_CA_PASSPHRASE"
_ENCRYPTED = b"ENCRYPTED"

ca = typer.Typer(no_args_is_help=True, help="Keep a fleet's authority: say who belongs to it.")
brokers = typer.Typer(no_args_is_help=True, help="Configure a Mosquitto that lets only the fleet in.")

Folder = Annotated[
    Path,
    typer.Option(
        "--dir", metavar="DIR", envvar="RESONATOR_CA", help="The authority's folder.", show_default=False
    ),
]
Site = Annotated[str, typer.Option(metavar="SITE", envvar="RESONATOR_SITE", help="The party's site.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where its identity goes; by default below the authority's folder."),
]
Days = Annotated[int, typer.Option(min=1, max=1825, help="How long the certificate is valid.")]
NAME = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
_FOLDER = platformdirs.user_state_path("resonator") / "ca"
_DAYS = LIFE.days
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_DURATION = re.compile(r"([1-9][0-9]{0,3})([mhd])")


@ca.command()
def init(
    folder: Folder = _FOLDER,
    fleet: Annotated[str, typer.Option(metavar="NAME", help="What the fleet is called.")] = "Resonator fleet",
    passphrase: Annotated[
        bool, typer.Option(help=f"Protect the keys, by ${PASSPHRASE} or as typed.")
    ] = False,
) -> None:
    """Make the authority of a new fleet: a root, and an issuing authority below it."""
    if not 0 < len(fleet) <= 64:
        raise InputInvalid(f"--fleet {fleet!r}: a name has 1 to 64 characters")
    Authority.create(folder, fleet, _ask_passphrase(new=True) if passphrase else None)
    say(f"the authority of {fleet} is in {folder}; root.key is needed no more: put it away")


@ca.command()
def hub(
    name: NAME, folder: Folder = _FOLDER, site: Site = DEFAULT_SITE, out: Out = None, days: Days = _DAYS
) -> None:
    """Give a hub its identity."""
    _enrol(Party("hub", site, name), folder, out, days)


@ca.command()
def broker(
    name: NAME,
    san: Annotated[list[str], typer.Option(metavar="HOST", help="A name or address that it is reached by.")],
    folder: Folder = _FOLDER,
    site: Site = DEFAULT_SITE,
    out: Out = None,
    days: Days = _DAYS,
) -> None:
    """Give a broker its identity."""
    _enrol(Party("broker", site, name), folder, out, days, san)


@ca.command()
def device(
    name: NAME, folder: Folder = _FOLDER, site: Site = DEFAULT_SITE, out: Out = None, days: Days = _DAYS
) -> None:
    """Give a box its identity, to be carried there by hand."""
    _enrol(Party("device", site, name), folder, out, days)


@ca.command()
def user(
    name: NAME,
    role: Annotated[str, typer.Option(metavar="|".join(USERS), help="What the user may do.")] = "submitter",
    folder: Folder = _FOLDER,
    site: Site = DEFAULT_SITE,
    out: Out = None,
    days: Days = _DAYS,
) -> None:
    """Give a user an identity."""
    _enrol(Party(_user_role(role), site, name), folder, out, days)


@ca.command()
def serve(
    folder: Folder = _FOLDER,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen at.")] = enrolment.PORT,
    json: JsonLog = False,
) -> None:
    """Enrol boxes that have a token, until Ctrl-C."""
    logs.configure("info", json=json)
    door = Door(folder, _passphrase(folder))

    async def run() -> None:
        async with door.opened(host, port) as found:
            say(f"boxes are enrolled at {host}:{found}")
            await asyncio.Event().wait()

    asyncio.run(run())


@ca.command("list")
def list_(folder: Folder = _FOLDER, as_json: Json = False) -> None:
    """List the certificates that were issued, oldest first."""
    with _open(folder) as authority:
        entries = list(authority.register)
    if as_json:
        print_json(entries)
        return
    table = Table("who", "role", "issued", "valid until", "")
    for entry in entries:
        end = f"revoked {entry.revoked:%Y-%m-%d}" if entry.revoked else ""
        table.add_row(
            entry.party.user, entry.role, f"{entry.issued:%Y-%m-%d}", f"{entry.valid_until:%Y-%m-%d}", end
        )
    console().print(table)


@ca.command()
def revoke(name: NAME, folder: Folder = _FOLDER) -> None:
    """Let somebody in no longer: NAME, or SITE/dev/NAME where several have that name."""
    with _open(folder) as authority:
        for entry in authority.revoke(name):
            say(f"revoked {entry.party.user}, serial {entry.serial}; brokers need the new revoked.crl")


@ca.command()
def renew(name: NAME, folder: Folder = _FOLDER, out: Out = None, days: Days = _DAYS) -> None:
    """Give somebody's key a new certificate."""
    with _open(folder) as authority:
        party = authority.find(name)[-1].party
        identity = out or _place(folder, party)
        if Credentials.load(identity).party != party:
            raise InputInvalid(f"{identity} is not the identity of {party.user}")
        authority.renew(identity, party, timedelta(days=days))
        say(f"renewed {party.user} in {identity}")


def enroll_token(
    folder: Folder = _FOLDER,
    site: Site = DEFAULT_SITE,
    uses: Annotated[int, typer.Option(min=1, max=10_000, help="How many boxes may enrol with it.")] = 1,
    ttl: Annotated[str, typer.Option(metavar="1h|30m|2d", help="How long it is good for.")] = "1h",
    as_json: Json = False,
) -> None:
    """Print a token with which boxes of a site enrol: `resonator agent enroll --token ...`."""
    with _open(folder) as authority:
        token = str(authority.invite(Party("device", site, "box").site, uses, _duration(ttl)))
    if as_json:
        print_json({"token": token})
    else:
        print(token)


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InputInvalid(f"--ttl {text!r} is not a time such as 30m, 1h or 2d")
    return int(found[1]) * _UNITS[found[2]]


@brokers.callback()
def _several() -> None:
    """Configure a Mosquitto that lets only the fleet in."""  # keeps `config` a verb while it is the only one


@brokers.command()
def config(
    name: NAME,
    folder: Folder = _FOLDER,
    site: Site = DEFAULT_SITE,
    identity: Out = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where it listens.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port that it listens at.")] = TLS_PORT,
    account: Annotated[
        str | None,
        typer.Option("--user", metavar="ACCOUNT", help="Who runs it and owns its files; you by default."),
    ] = None,
) -> None:
    """Write mosquitto.conf, its access list and the revocations beside the identity of broker NAME."""
    party = Party("broker", site, name)
    place = (identity or _place(folder, party)).absolute()
    if Credentials.load(place).party != party:
        raise InputInvalid(f"{place} is not the identity of {party.user}")
    with _open(folder) as authority:
        hubs, overseers = authority.users("hub"), authority.users("operator", "viewer")
        revoked = (folder / mosquitto.REVOCATIONS).read_bytes()
    (place / mosquitto.DATA).mkdir(mode=0o700, exist_ok=True)
    (place / mosquitto.REVOCATIONS).write_bytes(revoked)
    (place / mosquitto.RULES).write_text(mosquitto.rules(hubs, overseers))
    (place / mosquitto.CONFIG).write_text(mosquitto.config(place, host, port, account or getuser()))
    if account is not None:
        _give(place, account)
    say(f"start the broker with: mosquitto -c {place / mosquitto.CONFIG}")


def _give(folder: Path, account: str) -> None:
    try:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, account)
    except (LookupError, PermissionError) as error:
        raise InputInvalid(f"--user {account}: the files cannot be given to that account ({error})") from None


def _enrol(party: Party, folder: Path, out: Path | None, days: int, hosts: list[str] | None = None) -> None:
    identity = out or _place(folder, party)
    with _open(folder) as authority:
        authority.enrol(party, identity, timedelta(days=days), hosts or ())
    say(f"the identity of {party.role} {party.user} is in {identity}, valid for {days} days")


def _place(folder: Path, party: Party) -> Path:
    return folder / "identities" / party.user


def _user_role(text: str) -> Role:
    role = next((role for role in USERS if role == text), None)
    if role is None:
        raise InputInvalid(f"--role {text!r} is none of {', '.join(USERS)}")
    return role


@contextmanager
def _open(folder: Path) -> Iterator[Authority]:
    with Authority.open(folder, _passphrase(folder)) as authority:
        yield authority


def _passphrase(folder: Path) -> bytes | None:
    """Return the passphrase of an authority; None where its keys have none."""
    key = folder / f"{ISSUING}.key"
    protected = key.is_file() and _ENCRYPTED in key.read_bytes()
    return _ask_passphrase(new=False) if protected else None


def _ask_passphrase(*, new: bool) -> bytes:
    """Return the passphrase from the environment or the terminal; raises InputInvalid."""
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
