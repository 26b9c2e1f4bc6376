"""`resonator ca broker` and `resonator broker config`: a Mosquitto that lets only the fleet in."""

from __future__ import annotations

from datetime import timedelta
from getpass import getuser
from pathlib import Path
from typing import Annotated

import typer

from resonator.bus.url import TLS_PORT
from resonator.cli.exits import say
from resonator.errors import InputInvalid
from resonator.settings import DEFAULT_SITE
from resonator.trust import Credentials, Party
from resonator_hub.authority.authority import Authority
from resonator_hub.authority.brokers import configure, give
from resonator_hub.authority.options import DAYS, FOLDER, NAME, Days, Folder, Out, Site, opened

brokers = typer.Typer(no_args_is_help=True, help="Configure a Mosquitto that lets only the fleet in.")

Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Where it listens.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="The port that it listens at.")]
Account = Annotated[
    str | None,
    typer.Option("--user", metavar="ACCOUNT", help="Who runs it and owns its files; you by default."),
]
Hosts = Annotated[list[str], typer.Option(metavar="HOST", help="A name or address that it is reached by.")]


def broker(
    name: NAME,
    san: Hosts,
    folder: Folder = FOLDER,
    site: Site = DEFAULT_SITE,
    out: Out = None,
    days: Days = DAYS,
    host: Host = "0.0.0.0",
    port: Port = TLS_PORT,
    account: Account = None,
) -> None:
    """Give a broker its identity, and write the configuration of a Mosquitto beside it."""
    party = Party("broker", site, name)
    with opened(folder) as authority:
        place = (out or authority.place(party.user)).absolute()
        authority.enrol(party, place, timedelta(days=days), san)
        say(f"the identity of broker {party.user} is in {place}, valid for {days} days")
        _configure(authority, place, host, port, account)


@brokers.callback()
def _several() -> None:
    """Configure a Mosquitto that lets only the fleet in."""  # keeps `config` a verb while it is the only one


@brokers.command()
def config(
    name: NAME,
    folder: Folder = FOLDER,
    site: Site = DEFAULT_SITE,
    identity: Out = None,
    host: Host = "0.0.0.0",
    port: Port = TLS_PORT,
    account: Account = None,
) -> None:
    """Write mosquitto.conf, its access list and the revocations beside the identity of broker NAME."""
    party = Party("broker", site, name)
    with opened(folder) as authority:
        place = (identity or authority.place(party.user)).absolute()
        if Credentials.load(place).party != party:
            raise InputInvalid(f"{place} is not the identity of {party.user}")
        _configure(authority, place, host, port, account)


def _configure(authority: Authority, place: Path, host: str, port: int, account: str | None) -> None:
    written = configure(place, authority.lists(), host, port, account or getuser())
    give(place, account)
    say(f"start the broker with: mosquitto -c {written}")
