"""`resonator devices`, `device`, `drain` and `undrain`: the fleet as the hub sees it."""

from __future__ import annotations

from typing import Annotated

import typer

from resonator.cli import options
from resonator.cli.connect import with_client
from resonator.cli.exits import say
from resonator.cli.output import console, print_json
from resonator.cli.pictures import device_picture, devices_table

DeviceArgument = Annotated[str, typer.Argument(metavar="NAME", help="NAME or SITE/NAME.")]


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
    name: DeviceArgument,
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


def drain(
    name: DeviceArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who wait for it.")] = "",
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """Give a device no more work, until it is undrained; what it measures is finished."""
    report = with_client(broker, site, identity, lambda client: client.drain(name, reason))
    if json:
        print_json(report)
    else:
        say(f"{report.device} gets no more work until `resonator undrain {report.device}`")


def undrain(
    name: DeviceArgument,
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """Let a drained device have work again."""
    report = with_client(broker, site, identity, lambda client: client.undrain(name))
    if json:
        print_json(report)
    else:
        say(f"{report.device} may have work again")
