"""`resonator devices` and `device`: the fleet as the hub sees it."""

from __future__ import annotations

from typing import Annotated

import typer

from resonator.cli import options
from resonator.cli.connect import with_client
from resonator.cli.output import console, print_json
from resonator.cli.pictures import device_picture, devices_table


def devices(
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """List the devices."""
    reports = with_client(broker, site, identity, lambda client: client.devices())
    if json:
        print_json(reports)
    else:
        console().print(devices_table(reports))


def device(
    name: Annotated[str, typer.Argument(metavar="NAME", help="NAME or SITE/NAME.")],
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """Show one device."""
    report = with_client(broker, site, identity, lambda client: client.device(name))
    if json:
        print_json(report)
    else:
        console().print(device_picture(report))
