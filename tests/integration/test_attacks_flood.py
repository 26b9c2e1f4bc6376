"""Floods at a real Mosquitto: a member of the fleet says too much, everybody else is served all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import mqtt5
import pytest

from fakes import flooder
from fakes.brokers import embedded
from fakes.fleet_authority import Fleet
from fakes.raw_mqtt import RawClient
from fakes.scene import BAD, BOB, Scene, staged
from fakes.shell import SITE, state
from fakes.speakers import speaking
from resonator.bus import topics
from resonator.bus.gate import ALLOWANCES
from resonator.bus.mqtt import MqttBus
from resonator.trust import Party
from resonator_hub.broker import connection

RATE, COUNT = 10_000, 20_000
LONG_S = 60.0


@contextlib.asynccontextmanager
async def flooding(fleet: Fleet, url: str, party: Party, kind: str, qos: int) -> AsyncIterator[None]:
    """A flood that has begun at the start of the block, and ended at its end."""
    options = (url, str(fleet.place(party)), kind, str(qos), "200", str(RATE), str(COUNT))
    process = await asyncio.create_subprocess_exec(
        sys.executable, flooder.__file__, *options, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), LONG_S) == b"flooding\n"
        yield
        said = await asyncio.wait_for(process.stdout.readline(), LONG_S)
        assert json.loads(said)[0] == COUNT
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def all_heard(scene: Scene) -> None:
    """Wait until the hub is through with all that the bad device said: its presence comes last."""
    async with speaking(scene.fleet, scene.url, BAD) as bad:
        topic = topics.device_up(SITE, BAD.name, "state")
        await bad.peer.send(topic, state())
        await scene.until_known(f"{SITE}/{BAD.name}")


@pytest.mark.parametrize("kind", ["garbage", "unsigned", "forged", "meaningless"])
async def test_attack_by_flood_of_a_device_costs_a_job_nothing_and_every_message_is_counted(
    tmp_path: Path, kind: str
) -> None:
    async with staged(tmp_path, captured=False) as scene:
        async with flooding(scene.fleet, scene.url, BAD, kind, qos=1):
            await scene.submit()
            await scene.succeeds()
        await all_heard(scene)
        looked_at = COUNT - scene.refused["flood"]
        assert looked_at <= 1.5 * ALLOWANCES["dev", "result"].burst
        reason = {"garbage": "invalid", "meaningless": "of no job here"}.get(kind, "not signed as it must be")
        assert scene.refused[reason] == looked_at
        assert len(scene.device.acked) >= len(scene.device.reported)


async def test_attack_by_flood_of_topics_is_stopped_by_the_broker(tmp_path: Path) -> None:
    async with staged(tmp_path, captured=False) as scene:
        async with flooding(scene.fleet, scene.url, BAD, "stray", qos=0):
            await scene.submit()
            await scene.succeeds()
        await all_heard(scene)
        assert not scene.refused


async def test_attack_by_flood_of_requests_keeps_no_other_client_waiting(tmp_path: Path) -> None:
    async with staged(tmp_path, captured=False) as scene:
        async with flooding(scene.fleet, scene.url, BOB, "requests", qos=1):
            await scene.submit()
            await scene.succeeds()
        assert scene.refused["flood"] > ALLOWANCES["client", "request"].burst


async def test_attack_by_flood_on_loopback_is_read_no_faster_than_a_hub_can_bear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flood, burst = 1000, 200.0
    monkeypatch.setattr(connection, "PUBLISH_BURST", burst)
    monkeypatch.setattr(connection, "PUBLISH_RATE", 1e-3)  # what is beyond the burst waits
    async with embedded() as broker, MqttBus(broker.url) as hub, MqttBus(broker.url) as good:
        await hub.subscribe("#")
        await asyncio.gather(hub.wait_connected(5), good.wait_connected(5))
        bad = await RawClient.connect(broker.url, "bad")
        for _ in range(flood):
            bad.send(mqtt5.PublishPacket("bad", bytes(1024)))
        deliveries = hub.deliveries()
        publishing = asyncio.ensure_future(good.publish("good", b"x"))
        heard = []
        while "good" not in heard:
            heard.append((await asyncio.wait_for(anext(deliveries), LONG_S)).topic)
        await publishing
        assert len(heard) < flood, "who says little does not wait until the flood is over"
        monkeypatch.setattr(connection, "PUBLISH_BURST", flood)
        for one in broker._connections:
            one._read_on()  # as if its time had come
        while len(heard) <= flood:
            heard.append((await asyncio.wait_for(anext(deliveries), LONG_S)).topic)
        await bad.hang_up()
    assert sorted(heard) == ["bad"] * flood + ["good"], "nothing is lost"
