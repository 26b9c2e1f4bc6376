"""`resonator sites`: how the sites are linked, as the hub sees it."""

from __future__ import annotations

from resonator.cli import options
from resonator.cli.connect import with_client
from resonator.cli.output import console, print_json
from resonator.cli.pictures import sites_table


def sites(
    json: options.Json = False,
    broker: options.Broker = None,
    site: options.Site = None,
    identity: options.Identity = None,
) -> None:
    """List the sites: whether their links are up, what waits there, and how long an answer takes."""
    reports = with_client(broker, site, identity, lambda client: client.sites())
    if json:
        print_json(reports)
    else:
        console().print(sites_table(reports))
