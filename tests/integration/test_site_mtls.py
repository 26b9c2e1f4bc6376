"""A site's broker with certificates: its bridge carries what its own site says, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from getpass import getuser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fakes.brokers import free_port
from fakes.fleet_authority import BOX, HOST, HUB, Fleet, guarded
from fakes.network import Place
from fakes.sites import PlacedBroker
from fakes.somebody import connected, say
from resonator.bus import bridge, topics
from resonator.trust import Party
from resonator_hub.authority import Authority, mosquitto
from resonator_hub.authority.authority import LIFE
from resonator_hub.authority.brokers import configure
from resonator_hub.sites.verbs import sites

EDGE, PRESS = Party("broker", "plant", "edge"), Party("device", "plant", "press")
EVE = Party("submitter", "plant", "eve")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet with a site besides its own: a broker, a box and a submitter."""
    made = Fleet(tmp_path)
    for party in (PRESS, EVE):
        made.enrol(party)
    with Authority.open(made.folder, None) as authority:
        authority.enrol(EDGE, made.place(EDGE), LIFE, [HOST])
        configure(made.place(EDGE), authority.lists(), HOST, free_port(), getuser())
    return made


@contextlib.asynccontextmanager
async def bridged(fleet: Fleet, cloud: str) -> AsyncIterator[PlacedBroker]:
    """The broker of the site, bridged to that of the cloud."""
    place, port = fleet.place(EDGE), free_port()
    where = ["--cloud", cloud, "--identity", str(place), "--host", HOST, "--port", str(port)]
    done = CliRunner().invoke(sites, ["config", "plant", *where], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    broker = PlacedBroker(Place("plant", (), HOST, HOST, HOST, port), place / mosquitto.CONFIG, tls=True)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.end()


async def test_acl_a_site_speaks_over_its_bridge(fleet: Fleet) -> None:
    async with (
        guarded(fleet) as cloud,
        connected(cloud, fleet.tls(HUB), "hub") as hub,
        bridged(fleet, cloud) as plant,
        connected(plant.url, fleet.tls(PRESS), "press") as press,
        connected(plant.url, fleet.tls(EVE), "eve") as eve,
    ):
        await hub.connection.subscribe(topics.for_hub())
        await press.connection.subscribe(topics.for_device("plant", "press"))
        await eve.connection.subscribe([*topics.for_client("plant", "eve"), topics.hubs()])
        await hub.hears(bridge.UP)
        await press.hears(bridge.UP)
        os.kill(plant.pid, signal.SIGHUP)  # as for a new list of revocations
        await plant.logged("Reloading config")
        await say(press, topics.device_up("plant", "press", "state"), b"a box", retain=True)
        await say(press, topics.device_up("plant", "press", "result"), b"a result")
        await say(eve, topics.client_up("plant", "eve"), b"a request")
        for payload in (b"a box", b"a result", b"a request"):
            await hub.hears(payload)
        await say(hub, topics.hub_state("lab", "main"), b"here I am", retain=True)
        await say(hub, topics.device_dn("plant", "press", "kernel"), b"a kernel")
        await say(hub, topics.client_dn("plant", "eve"), b"an answer")
        await press.hears(b"a kernel")
        await eve.hears(b"an answer")
        await eve.hears(b"here I am")


async def test_acl_attack_by_a_sites_broker_reaches_nobody_of_another_site(fleet: Fleet) -> None:
    async with (
        guarded(fleet) as cloud,
        connected(cloud, fleet.tls(HUB), "hub") as hub,
        connected(cloud, fleet.tls(BOX), "box") as box,
        connected(cloud, fleet.tls(EDGE), "thief") as thief,
    ):
        await hub.connection.subscribe(topics.for_hub())
        await box.connection.subscribe([*topics.for_device("lab", "box"), topics.hubs()])
        await thief.connection.subscribe(["#"])
        forged = (
            topics.device_up("lab", "box", "result"),
            topics.device_dn("lab", "box", "kernel"),
            topics.device_dn("plant", "press", "kernel"),
            topics.client_up("lab", "bob"),
            topics.hub_state("lab", "main"),
            topics.job_status("plant", "job"),
            topics.bridge_state("lab", "edge"),
            topics.bridge_state("plant", "another"),
        )
        for topic in forged:
            await say(thief, topic, b"forged")
        await say(hub, topics.device_dn("lab", "box", "kernel"), b"a kernel")
        await box.hears(b"a kernel")
        # What he may say and hear comes last, in order: had anything come before it, it had been heard.
        await say(thief, topics.device_up("plant", "press", "result"), b"the end")
        await hub.hears(b"the end")
        await say(hub, topics.device_dn("plant", "press", "ack"), b"the end")
        await thief.hears(b"the end")
        assert b"forged" not in [one.payload for one in (*hub.heard, *box.heard)]
        assert b"a kernel" not in [one.payload for one in thief.heard]
