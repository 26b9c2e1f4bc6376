"""`resonator site config`: the whole configuration of a site's broker."""

from __future__ import annotations

from getpass import getuser
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from resonator import settings
from resonator.bus.url import DEFAULT_PORT, TLS_PORT, BrokerAddress, parse_broker_url
from resonator.cli.exits import say
from resonator.cli.options import Insecure
from resonator.errors import InputInvalid
from resonator.trust import Credentials, Party, credentials_for
from resonator.trust.credentials import REVOCATIONS
from resonator_hub.authority import mosquitto
from resonator_hub.authority.brokers import give
from resonator_hub.sites.bridge import KEEPALIVE_S, MAX_QUEUED, Bridge
from resonator_hub.sites.bridge import config as text_of

sites = typer.Typer(no_args_is_help=True, help="Join boxes behind a broker of their own to the hub's.")

UNNAMED = "edge"
"""What a site's broker is called that has no identity."""


@sites.callback()
def _several() -> None:
    """Join boxes behind a broker of their own to the hub's."""  # so `config` stays a verb


@sites.command()
def config(
    name: Annotated[str, typer.Argument(metavar="SITE", help="What the site is called.", show_default=False)],
    cloud: Annotated[str, typer.Option(metavar="URL", help="The hub's broker.", show_default=False)],
    identity: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder that `resonator ca broker` wrote, for a cloud of mqtts://."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Without TLS: where configuration and data go.", show_default=False),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where it listens; without TLS only on this machine."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help=f"The port; by default {TLS_PORT}, {DEFAULT_PORT} without TLS."),
    ] = None,
    keepalive: Annotated[
        int, typer.Option(metavar="S", min=5, max=3600, help="How often a silent link is tried, in seconds.")
    ] = KEEPALIVE_S,
    max_queued: Annotated[
        int, typer.Option(metavar="N", min=100, max=10**6, help="Messages that wait while the link is cut.")
    ] = MAX_QUEUED,
    account: Annotated[
        str | None,
        typer.Option("--user", metavar="ACCOUNT", help="Who runs it and owns its files; you by default."),
    ] = None,
    insecure: Insecure = False,
) -> None:
    """Write mosquitto.conf for the broker of SITE, bridged to the cloud's; run it on that broker's machine.

    The boxes and users of the site speak with this broker only. It keeps what they say while the link is cut.
    """
    address = parse_broker_url(cloud)
    chosen = settings.load(identity=identity, insecure=insecure or None)
    credentials = credentials_for(cloud, chosen.identity, insecure=chosen.insecure)
    if credentials is None:
        broker = Party("broker", name, UNNAMED)
        folder = (out or platformdirs.user_state_path("resonator") / "sites" / name).absolute()
        listens = BrokerAddress(host or "127.0.0.1", port or DEFAULT_PORT)
        credentials_for(str(listens), None, insecure=chosen.insecure)
    else:
        broker, folder = _own(credentials, name, out), credentials.folder.absolute()
        listens = BrokerAddress(host or "0.0.0.0", port or TLS_PORT, tls=True)
    (folder / mosquitto.DATA).mkdir(mode=0o700, parents=True, exist_ok=True)
    written = folder / mosquitto.CONFIG
    bridge = Bridge(broker, address, keepalive, max_queued)
    written.write_text(text_of(bridge, folder, listens.host, listens.port, account or getuser()))
    give(folder, account)
    say(f"the broker of site {name} is bridged to {address}; start it with: mosquitto -c {written}")


def _own(credentials: Credentials, site: str, out: Path | None) -> Party:
    """Return the site's broker, whose identity this has to be, with the lists that came with it."""
    party, folder = credentials.party, credentials.folder
    if out is not None:
        raise InputInvalid(f"--out {out}: with an identity the configuration goes where that is, {folder}")
    if (party.role, party.site) != ("broker", site):
        raise InputInvalid(
            f"{folder} is the identity of {party.role} {party.user}, not of a broker of site {site}; make "
            f"one with `resonator ca broker edge --site {site} --san HOST`"
        )
    for name in (REVOCATIONS, mosquitto.RULES):
        if not (folder / name).is_file():
            raise InputInvalid(f"{folder / name} is missing: take along all that `resonator ca broker` wrote")
    return party
