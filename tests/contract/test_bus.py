"""What the Bus promises, over the embedded broker and over a real Mosquitto alike."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mqtt5
import pytest
from structlog.testing import capture_logs

from fakes.brokers import Mosquitto, Relay, free_port
from fakes.raw_mqtt import RawClient, SlowBroker
from resonator.bus.backoff import Backoff
from resonator.bus.connection import ANSWER_TIMEOUT_S
from resonator.bus.mqtt import MqttBus
from resonator.bus.port import MAX_PACKET_BYTES, Bus, BusDisconnected, Delivery, PayloadTooLarge, Will
from resonator_hub.broker import EmbeddedBroker

WAIT_S = 20.0


@pytest.fixture(params=["embedded", "mosquitto"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedBroker | Mosquitto]:
    server = EmbeddedBroker() if request.param == "embedded" else Mosquitto(tmp_path)
    await server.start()
    yield server
    await server.stop()


@contextlib.asynccontextmanager
async def connected(url: str, *filters: str, **options: object) -> AsyncIterator[MqttBus]:
    """A bus that is connected and subscribed."""
    async with MqttBus(url, backoff=Backoff(0.001, 0.05), **options) as bus:  # type: ignore[arg-type]
        await bus.subscribe(*filters)
        await bus.wait_connected(WAIT_S)
        yield bus


async def take(bus: Bus, count: int) -> list[Delivery]:
    """Return the next `count` deliveries."""

    async def collect() -> list[Delivery]:
        taken = []
        async for delivery in bus.deliveries():
            taken.append(delivery)
            if len(taken) == count:
                break
        return taken

    return await asyncio.wait_for(collect(), WAIT_S)


async def until_lost(bus: MqttBus) -> None:
    """Wait until the bus has noticed that its connection is gone."""

    async def watch() -> None:
        while bus.connected:
            await asyncio.sleep(0)

    await asyncio.wait_for(watch(), WAIT_S)


# --- delivery -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
async def test_what_is_published_is_delivered_in_order(broker: EmbeddedBroker | Mosquitto, qos: int) -> None:
    async with connected(broker.url) as sender, connected(broker.url, "a/b") as receiver:
        for number in range(200):
            await sender.publish("a/b", b"%d" % number, qos=qos)

        assert await take(receiver, 200) == [Delivery("a/b", b"%d" % n, retained=False) for n in range(200)]


async def test_many_publish_at_once(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url) as sender, connected(broker.url, "#") as receiver:
        await asyncio.gather(*(sender.publish(f"t/{n}", b"%d" % n) for n in range(500)))

        arrived = await take(receiver, 500)

    assert sorted(int(delivery.payload) for delivery in arrived) == list(range(500))


async def test_nothing_is_dropped_when_the_reader_is_late(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url, "a") as bus:
        for number in range(3000):
            await bus.publish("a", b"%d" % number)

        arrived = await take(bus, 3000)

    assert [int(delivery.payload) for delivery in arrived] == list(range(3000))


async def test_wildcards_take_in_what_they_should(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url, "dev/+/up/state", "jobs/#") as bus:
        for topic in ("dev/1/up/state", "dev/1/up/result", "dev/1/2/up/state", "jobs", "jobs/7/status"):
            await bus.publish(topic, b"")
        await bus.publish("jobs/end", b"")

        arrived = [delivery.topic for delivery in await take(bus, 4)]

    assert arrived == ["dev/1/up/state", "jobs", "jobs/7/status", "jobs/end"]


async def test_four_mebibytes_arrive_whole(broker: EmbeddedBroker | Mosquitto) -> None:
    payload = bytes(range(256)) * (4 << 12)
    async with connected(broker.url, "big") as bus:
        await bus.publish("big", payload)

        (delivery,) = await take(bus, 1)

    assert delivery.payload == payload


async def test_more_than_a_packet_holds_is_refused_before_it_is_sent(
    broker: EmbeddedBroker | Mosquitto,
) -> None:
    async with connected(broker.url) as bus:
        with pytest.raises(PayloadTooLarge, match=f"does not fit into {MAX_PACKET_BYTES}"):
            await bus.publish("big", bytes(MAX_PACKET_BYTES))
        assert bus.connected


# --- retained -------------------------------------------------------------------------------------------


async def test_retained_state_is_there_for_who_comes_later(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url, "state") as early:
        await early.publish("state", b"old", retain=True)
        await early.publish("state", b"new", retain=True)
        assert [delivery.retained for delivery in await take(early, 2)] == [False, False]

    async with connected(broker.url, "state") as late:
        assert await take(late, 1) == [Delivery("state", b"new", retained=True)]


async def test_an_empty_payload_clears_what_is_retained(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url) as bus:
        await bus.publish("state", b"old", retain=True)
        await bus.publish("state", b"", retain=True)

        await bus.subscribe("state", "end")
        await bus.publish("end", b"")

        assert [delivery.topic for delivery in await take(bus, 1)] == ["end"]


# --- wills and goodbyes ---------------------------------------------------------------------------------


async def test_a_cut_connection_fires_the_will_of_that_session(broker: EmbeddedBroker | Mosquitto) -> None:
    sessions = iter(range(1, 100))
    async with (
        connected(broker.url, "presence") as watcher,
        Relay(broker.url) as relay,
        connected(relay.url, will=lambda: Will("presence", b"%d" % next(sessions))) as bus,
    ):
        relay.cut()
        await until_lost(bus)
        await bus.wait_connected(WAIT_S)
        relay.cut()

        assert [delivery.payload for delivery in await take(watcher, 2)] == [b"1", b"2"]


async def test_a_retained_will_replaces_the_presence(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url, "presence") as watcher, Relay(broker.url) as relay:
        will = Will("presence", b"offline", retain=True)
        async with connected(relay.url, will=will, client_id="box") as bus:
            await bus.publish("presence", b"online", retain=True)
            relay.cut()
            assert [delivery.payload for delivery in await take(watcher, 2)] == [b"online", b"offline"]
            async with connected(broker.url, "presence") as late:
                assert await take(late, 1) == [Delivery("presence", b"offline", retained=True)]


async def test_a_goodbye_fires_no_will(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url, "#") as watcher:
        async with connected(broker.url, will=Will("presence", b"gone")) as bus:
            await bus.publish("last", b"words")
        await watcher.publish("end", b"")

        assert [delivery.topic for delivery in await take(watcher, 2)] == ["last", "end"]


# --- reconnecting ---------------------------------------------------------------------------------------


async def test_after_a_restart_of_the_broker_all_goes_on(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url, "a/#") as receiver, connected(broker.url) as sender:
        await sender.publish("a/1", b"before")
        await take(receiver, 1)

        await broker.stop()
        await until_lost(receiver)
        assert not receiver.connected
        await broker.start()
        await receiver.wait_connected(WAIT_S)
        await sender.publish("a/2", b"after")

        assert await take(receiver, 1) == [Delivery("a/2", b"after", retained=False)]


async def test_a_publish_waits_for_the_broker_to_come_back(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url, "a") as bus:
        await broker.stop()
        await until_lost(bus)
        waiting = asyncio.create_task(bus.publish("a", b"patient"))
        await asyncio.sleep(0)
        assert not waiting.done()

        await broker.start()
        await asyncio.wait_for(waiting, WAIT_S)

        assert (await take(bus, 1))[0].payload == b"patient"


async def test_what_a_cut_swallows_is_sent_again(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url, "a") as receiver, Relay(broker.url) as relay:
        async with connected(relay.url) as sender:
            publishing = [asyncio.create_task(sender.publish("a", b"%d" % n)) for n in range(300)]
            await take(receiver, 50)
            relay.cut()
            await asyncio.wait_for(asyncio.gather(*publishing), WAIT_S)
            await sender.publish("a", b"end")
        seen = set()
        while b"end" not in seen:
            seen |= {delivery.payload for delivery in await take(receiver, 1)}

    assert seen >= {b"%d" % n for n in range(50, 300)}


async def test_hooks_run_after_each_connect_with_subscriptions_in_place(
    broker: EmbeddedBroker | Mosquitto,
) -> None:
    async with Relay(broker.url) as relay:
        bus = MqttBus(relay.url, backoff=Backoff(0.001, 0.05))

        async def announce() -> None:
            await bus.publish("presence", b"online")

        bus.on_connect(announce)
        await bus.subscribe("presence")
        async with bus:
            assert (await take(bus, 1))[0].payload == b"online"
            relay.cut()
            assert (await take(bus, 1))[0].payload == b"online"


async def test_a_filter_added_later_survives_reconnects_too(broker: EmbeddedBroker | Mosquitto) -> None:
    async with Relay(broker.url) as relay, connected(relay.url, "a") as bus:
        await bus.subscribe("b", "c")
        relay.cut()
        await until_lost(bus)
        await bus.wait_connected(WAIT_S)

        for topic in ("a", "b", "c"):
            await bus.publish(topic, b"")

        assert [delivery.topic for delivery in await take(bus, 3)] == ["a", "b", "c"]


async def until_two(entries: list[Any]) -> None:
    while len(entries) < 2:
        await asyncio.sleep(0)


async def test_a_broker_that_is_not_there_is_said_in_one_sentence_each_time() -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    with capture_logs() as logs:
        async with MqttBus(url, backoff=Backoff(0.001, 0.01), publish_timeout_s=0.2) as bus:
            with pytest.raises(BusDisconnected, match="did not answer within"):
                await bus.wait_connected(0.2)
            with pytest.raises(BusDisconnected, match="did not acknowledge a message to a within"):
                await bus.publish("a", b"")
            await asyncio.wait_for(until_two(logs), WAIT_S)

    sentences = [entry["event"] for entry in logs]
    assert all(
        sentence.startswith(f"broker {url} is not there (connection refused); trying again in ")
        for sentence in sentences
    )


async def test_closing_ends_the_deliveries(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url, "a") as bus:
        reader = asyncio.create_task(take(bus, 1))
        await asyncio.sleep(0)

    assert await asyncio.wait_for(reader, WAIT_S) == []


async def test_closing_while_connecting_leaves_nothing_behind(broker: EmbeddedBroker | Mosquitto) -> None:
    for _ in range(5):
        bus = MqttBus(broker.url)
        await bus.start()
        await asyncio.sleep(0)
        await bus.close()
        assert not bus.connected


async def test_closing_does_not_wait_for_a_broker_that_accepts_and_says_nothing() -> None:
    dialled: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    silent = await asyncio.start_server(lambda _, writer: dialled.put_nowait(writer), "127.0.0.1", 0)
    bus = MqttBus(f"mqtt://127.0.0.1:{silent.sockets[0].getsockname()[1]}")
    await bus.start()
    far_end = await asyncio.wait_for(dialled.get(), WAIT_S)

    await asyncio.wait_for(bus.close(), ANSWER_TIMEOUT_S / 2)

    assert not bus.connected
    far_end.close()
    await far_end.wait_closed()
    silent.close()


# --- the wire -------------------------------------------------------------------------------------------


async def test_small_packets_are_not_held_back(broker: EmbeddedBroker | Mosquitto) -> None:
    async with connected(broker.url) as bus:
        assert bus._connection is not None
        sockets = [bus._connection.socket()]
        if isinstance(broker, EmbeddedBroker):
            sockets += [peer._transport.get_extra_info("socket") for peer in broker._connections]  # type: ignore[union-attr]
            assert len(sockets) == 2

        for sock in sockets:
            assert sock is not None
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("receive_max", "peak"), [(65535, 500), (20, 20)])
async def test_no_message_waits_for_the_acknowledgement_of_another(receive_max: int, peak: int) -> None:
    """Behind a long round trip the number under way limits the throughput; the broker may limit that."""
    broker = SlowBroker(most=peak, receive_max=receive_max)
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    async with connected(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}") as bus:
        publishing = asyncio.gather(*(bus.publish("a", b"%d" % n) for n in range(500)))
        await asyncio.wait_for(publishing, WAIT_S)

    assert broker.peak == peak
    server.close()
    await server.wait_closed()


async def test_an_unacknowledged_message_is_delivered_again(broker: EmbeddedBroker | Mosquitto) -> None:
    keep = {"session_expiry_interval": 60}
    subscriber = await RawClient.connect(broker.url, "forgetful", **keep)
    await subscriber.subscribe("a", max_qos=mqtt5.QoS.AT_LEAST_ONCE)
    async with connected(broker.url) as sender:
        await sender.publish("a", b"important")
        first = await subscriber.receive(mqtt5.PublishPacket)
        await subscriber.hang_up()
        await sender.publish("a", b"meanwhile")

        subscriber = await RawClient.connect(broker.url, "forgetful", **keep)
        again = [await subscriber.receive(mqtt5.PublishPacket) for _ in range(2)]

    assert subscriber.connack.session_present
    assert [packet.payload for packet in again] == [b"important", b"meanwhile"]
    assert (again[0].duplicate, again[0].packet_id) == (True, first.packet_id)
    await subscriber.hang_up()
