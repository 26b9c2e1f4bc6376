import asyncio
from collections import Counter

import mqtt5
import pytest

from fakes.brokers import embedded
from fakes.raw_mqtt import RawClient
from resonator.bus.mqtt import MqttBus
from resonator.bus.port import Delivery
from resonator.errors import InputInvalid
from resonator_hub.broker import Faults
from resonator_hub.broker.faults import FaultInjector

TOPICS = ("a", "b", "c")
COUNT = 60


async def exchange(faults: Faults) -> list[tuple[str, int]]:
    """Send COUNT numbered messages to each topic through a faulty broker; returns what arrived, in order."""
    async with (
        embedded() as broker,
        MqttBus(broker.url) as sender,
        MqttBus(broker.url, client_id="subscriber") as receiver,
    ):
        await receiver.wait_connected(10)
        await receiver.subscribe("#")
        broker.faults = faults
        await asyncio.gather(
            *(sender.publish(topic, b"%d" % number) for number in range(COUNT) for topic in TOPICS)
        )
        broker.faults = None
        await sender.publish("end", b"")
        arrived = []
        async for delivery in receiver.deliveries():
            if delivery.topic == "end":
                return arrived
            arrived.append((delivery.topic, int(delivery.payload)))
    raise AssertionError("the bus closed by itself")


async def test_without_faults_all_arrives_once_and_in_order() -> None:
    arrived = await exchange(Faults())

    assert arrived == sorted(arrived, key=lambda pair: pair[1])
    assert len(arrived) == len(set(arrived)) == COUNT * len(TOPICS)


async def test_the_same_seed_loses_and_repeats_the_same_messages() -> None:
    faults = Faults(lose=0.2, repeat=0.2, seed=7)

    once, twice = await exchange(faults), await exchange(faults)

    assert Counter(once) == Counter(twice)
    counts = Counter(once)
    assert len(counts) < COUNT * len(TOPICS)
    assert max(counts.values()) == 2
    assert Counter(once) != Counter(await exchange(Faults(lose=0.2, repeat=0.2, seed=8)))


async def test_reordering_keeps_the_order_inside_a_topic() -> None:
    arrived = await exchange(Faults(delay_s=(0.0, 0.02), reorder=True, seed=1))

    for topic in TOPICS:
        assert [number for name, number in arrived if name == topic] == list(range(COUNT))
    assert [number for _, number in arrived] != sorted(number for _, number in arrived)


async def test_delay_without_reordering_keeps_all_in_order() -> None:
    arrived = await exchange(Faults(delay_s=(0.0, 0.01), seed=1))

    assert [number for _, number in arrived] == sorted(number for _, number in arrived)
    assert len(arrived) == COUNT * len(TOPICS)


async def test_retained_state_is_not_lost_at_a_subscription() -> None:
    async with embedded() as broker, MqttBus(broker.url) as bus:
        await bus.publish("state", b"online", retain=True)
        broker.faults = Faults(lose=1.0)

        await bus.subscribe("state")

        async for delivery in bus.deliveries():
            assert delivery == Delivery("state", b"online", retained=True)
            return


async def test_a_cut_hits_only_whom_it_names_and_fires_the_will() -> None:
    async with embedded() as broker, MqttBus(broker.url, client_id="watcher") as watcher:
        await watcher.wait_connected(10)
        await watcher.subscribe("will")
        victim = await RawClient.connect(broker.url, "victim", will=mqtt5.Will("will", payload=b"gone"))

        assert broker.cut("nobody") == 0
        assert broker.cut("victim") == 1

        async for delivery in watcher.deliveries():
            assert delivery.payload == b"gone"
            break
        assert watcher.connected
        assert await victim.receive() is None
        await victim.hang_up()


async def test_lost_and_repeated_messages_are_counted() -> None:
    delivered = []
    loser, repeater = FaultInjector(Faults(lose=1.0)), FaultInjector(Faults(repeat=1.0))

    loser.forward("me", "topic", lambda: delivered.append("lost"))
    repeater.forward("me", "topic", lambda: delivered.append("twice"))

    assert (loser.lost, repeater.repeated) == (1, 1)
    assert delivered == ["twice", "twice"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lose": 1.1}, "lose is 1.1; it is a probability"),
        ({"repeat": -0.1}, "repeat is -0.1"),
        ({"delay_s": (2.0, 1.0)}, "delay_s is"),
    ],
)
def test_impossible_faults_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputInvalid, match=message):
        Faults(**options)
