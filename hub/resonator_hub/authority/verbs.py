"""`resonator ca`: keep a fleet's authority; and the token with which boxes come to it."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from resonator.cli import logs
from resonator.cli.exits import say
from resonator.cli.options import Json, JsonLog
from resonator.cli.output import console, print_json
from resonator.errors import InputInvalid
from resonator.settings import DEFAULT_SITE
from resonator.trust import Credentials, Party, Role, enrolment
from resonator.trust.party import USERS
from resonator_hub.authority.access import Access
from resonator_hub.authority.authority import Authority
from resonator_hub.authority.broker_verbs import broker
from resonator_hub.authority.custody import LOOK_S, keep_lists_fresh
from resonator_hub.authority.enrolling import Door
from resonator_hub.authority.options import DAYS, FOLDER, NAME, Days, Folder, Out, Site, opened
from resonator_hub.authority.passphrase import PASSPHRASE, ask, passphrase_of

ca = typer.Typer(no_args_is_help=True, help="Keep a fleet's authority: say who belongs to it.")

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_DURATION = re.compile(r"([1-9][0-9]{0,3})([mhd])")


@ca.command()
def init(
    folder: Folder = FOLDER,
    fleet: Annotated[str, typer.Option(metavar="NAME", help="What the fleet is called.")] = "Resonator fleet",
    passphrase: Annotated[
        bool, typer.Option(help=f"Protect the keys, by ${PASSPHRASE} or as typed.")
    ] = False,
) -> None:
    """Make the authority of a new fleet: a root, and an issuing authority below it."""
    if not 0 < len(fleet) <= 64:
        raise InputInvalid(f"--fleet {fleet!r}: a name has 1 to 64 characters")
    Authority.create(folder, fleet, ask(new=True) if passphrase else None)
    say(f"the authority of {fleet} is in {folder}; root.key is needed no more: put it away")


@ca.command()
def hub(
    name: NAME, folder: Folder = FOLDER, site: Site = DEFAULT_SITE, out: Out = None, days: Days = DAYS
) -> None:
    """Give a hub its identity."""
    _enrol(Party("hub", site, name), folder, out, days)


ca.command()(broker)


@ca.command()
def device(
    name: NAME, folder: Folder = FOLDER, site: Site = DEFAULT_SITE, out: Out = None, days: Days = DAYS
) -> None:
    """Give a box its identity, to be carried there by hand."""
    _enrol(Party("device", site, name), folder, out, days)


@ca.command()
def user(
    name: NAME,
    role: Annotated[str, typer.Option(metavar="|".join(USERS), help="What the user may do.")] = "submitter",
    folder: Folder = FOLDER,
    site: Site = DEFAULT_SITE,
    out: Out = None,
    days: Days = DAYS,
) -> None:
    """Give a user an identity."""
    _enrol(Party(_user_role(role), site, name), folder, out, days)


@ca.command()
def serve(
    folder: Folder = FOLDER,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen at.")] = enrolment.PORT,
    json: JsonLog = False,
) -> None:
    """Enrol boxes that have a token, until Ctrl-C."""
    logs.configure("info", json=json)
    authority = Access(folder, passphrase_of(folder))

    async def run() -> None:
        async with Door(authority).opened(host, port) as found:
            say(f"boxes are enrolled at {host}:{found}")
            while True:
                keep_lists_fresh(authority)
                await asyncio.sleep(LOOK_S)

    asyncio.run(run())


@ca.command("list")
def list_(folder: Folder = FOLDER, as_json: Json = False) -> None:
    """List the certificates that were issued, oldest first."""
    with opened(folder) as authority:
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
def revoke(name: NAME, folder: Folder = FOLDER) -> None:
    """Let somebody in no longer: NAME, or SITE/dev/NAME where several have that name."""
    with opened(folder) as authority:
        for entry in authority.revoke(name):
            say(f"revoked {entry.party.user}, serial {entry.serial}")
    say("brokers whose identity is elsewhere need the new revoked.crl: `resonator broker config`")


@ca.command()
def renew(name: NAME, folder: Folder = FOLDER, out: Out = None, days: Days = DAYS) -> None:
    """Give somebody's key a new certificate."""
    with opened(folder) as authority:
        party = authority.find(name)[-1].party
        identity = out or authority.place(party.user)
        if Credentials.load(identity).party != party:
            raise InputInvalid(f"{identity} is not the identity of {party.user}")
        authority.renew_in(identity, party, timedelta(days=days))
        say(f"renewed {party.user} in {identity}")


def enroll_token(
    folder: Folder = FOLDER,
    site: Site = DEFAULT_SITE,
    uses: Annotated[int, typer.Option(min=1, max=10_000, help="How many boxes may enrol with it.")] = 1,
    ttl: Annotated[str, typer.Option(metavar="1h|30m|2d", help="How long it is good for.")] = "1h",
    as_json: Json = False,
) -> None:
    """Print a token with which boxes of a site enrol: `resonator agent enroll --token ...`."""
    with opened(folder) as authority:
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


def _enrol(party: Party, folder: Path, out: Path | None, days: int) -> None:
    with opened(folder) as authority:
        identity = out or authority.place(party.user)
        authority.enrol(party, identity, timedelta(days=days))
    say(f"the identity of {party.role} {party.user} is in {identity}, valid for {days} days")


def _user_role(text: str) -> Role:
    role = next((role for role in USERS if role == text), None)
    if role is None:
        raise InputInvalid(f"--role {text!r} is none of {', '.join(USERS)}")
    return role
