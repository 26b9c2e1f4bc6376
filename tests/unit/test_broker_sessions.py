from collections.abc import AsyncIterator

import mqtt5
import pytest

from fakes.brokers import embedded
from fakes.raw_mqtt import RawClient
from resonator_hub.broker import EmbeddedBroker
from resonator_hub.broker import connection as broker_connection
from resonator_hub.broker import session as broker_session

QOS1 = mqtt5.QoS.AT_LEAST_ONCE
Reason = mqtt5.DisconnectReasonCode


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    async with embedded() as running:
        yield running


# --- time -----------------------------------------------------------------------------------------------


async def test_who_says_nothing_is_hung_up_on(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_connection, "HANDSHAKE_S", 0.01)
    client = await RawClient.dial(broker.url)

    assert await client.receive() is None
    await client.hang_up()


async def test_a_silent_client_is_closed_after_its_keep_alive_and_its_will_published(
    broker: EmbeddedBroker,
) -> None:
    watcher = await RawClient.connect(broker.url, "watcher")
    await watcher.subscribe("will")

    silent = await RawClient.connect(broker.url, "silent", keep_alive=1, will=mqtt5.Will("will"))

    assert (await silent.receive(mqtt5.DisconnectPacket)).reason_code == Reason.KEEP_ALIVE_TIMEOUT
    assert (await watcher.receive(mqtt5.PublishPacket)).topic == "will"
    await silent.hang_up()
    await watcher.hang_up()


async def test_a_delayed_will_waits_and_a_client_that_is_back_in_time_takes_it_away(
    broker: EmbeddedBroker,
) -> None:
    watcher = await RawClient.connect(broker.url, "watcher")
    await watcher.subscribe("will/#")
    wills = {name: mqtt5.Will(f"will/{name}", will_delay_interval=1) for name in ("back", "gone")}
    for name, will in wills.items():
        client = await RawClient.connect(broker.url, name, will=will, session_expiry_interval=60)
        await client.hang_up()

    back = await RawClient.connect(broker.url, "back")

    assert (await watcher.receive(mqtt5.PublishPacket)).topic == "will/gone"
    await watcher.ping()
    await back.hang_up()
    await watcher.hang_up()


async def test_a_session_ends_when_its_time_is_up(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.url, "me", session_expiry_interval=1)
    await client.hang_up()
    there = await RawClient.connect(broker.url, "me", session_expiry_interval=1)
    assert there.connack.session_present
    watcher = await RawClient.connect(broker.url, "watcher")
    await watcher.subscribe("will")
    await there.hang_up()
    # A will with a longer delay than the session lives is due when the session ends.
    clock = await RawClient.connect(
        broker.url, "clock", session_expiry_interval=2, will=mqtt5.Will("will", will_delay_interval=9)
    )
    await clock.hang_up()
    await watcher.receive(mqtt5.PublishPacket)

    gone = await RawClient.connect(broker.url, "me")

    assert not gone.connack.session_present
    await gone.hang_up()
    await watcher.hang_up()


# --- sessions and flow control --------------------------------------------------------------------------


async def test_a_second_connection_takes_over_and_the_first_is_told(broker: EmbeddedBroker) -> None:
    watcher = await RawClient.connect(broker.url, "watcher")
    await watcher.subscribe("will")
    first = await RawClient.connect(broker.url, "me", will=mqtt5.Will("will", payload=b"1"))

    second = await RawClient.connect(broker.url, "me", will=mqtt5.Will("will", payload=b"2"))

    assert (await first.receive(mqtt5.DisconnectPacket)).reason_code == Reason.SESSION_TAKEN_OVER
    assert (await watcher.receive(mqtt5.PublishPacket)).payload == b"1"
    await second.ping()
    for client in (first, second, watcher):
        await client.hang_up()


async def test_a_client_without_an_id_is_given_one(broker: EmbeddedBroker) -> None:
    one = await RawClient.connect(broker.url, "")
    other = await RawClient.connect(broker.url, "")

    assert one.connack.assigned_client_id != other.connack.assigned_client_id
    await one.hang_up()
    await other.hang_up()


async def test_no_more_is_under_way_than_the_receive_maximum(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.url, "me", receive_max=2)
    await client.subscribe("a", no_local=False)
    for number in range(5):
        client.send(mqtt5.PublishPacket("a", b"%d" % number, qos=QOS1, packet_id=number + 1))
    received = []
    acknowledged = 0
    while acknowledged < 5:
        packet = await client.receive()
        acknowledged += isinstance(packet, mqtt5.PubAckPacket)
        received += [packet] if isinstance(packet, mqtt5.PublishPacket) else []
    assert [packet.payload for packet in received] == [b"0", b"1"]

    client.send(mqtt5.PubAckPacket(received[0].packet_id))

    assert (await client.receive(mqtt5.PublishPacket)).payload == b"2"
    await client.hang_up()


async def test_what_was_not_acknowledged_comes_again_in_order_with_the_same_ids(
    broker: EmbeddedBroker,
) -> None:
    keep = {"session_expiry_interval": 60}
    client = await RawClient.connect(broker.url, "me", receive_max=2, **keep)
    await client.subscribe("a")
    sender = await RawClient.connect(broker.url, "sender")
    for number in range(3):
        sender.send(mqtt5.PublishPacket("a", b"%d" % number, qos=QOS1, packet_id=number + 1))
        await sender.receive(mqtt5.PubAckPacket)
    first = [await client.receive(mqtt5.PublishPacket) for _ in range(2)]
    await client.hang_up()
    sender.send(mqtt5.PublishPacket("a", b"3", qos=QOS1, packet_id=9))
    await sender.receive(mqtt5.PubAckPacket)

    client = await RawClient.connect(broker.url, "me", **keep)
    again = [await client.receive(mqtt5.PublishPacket) for _ in range(4)]

    assert client.connack.session_present
    assert [packet.payload for packet in again] == [b"0", b"1", b"2", b"3"]
    assert [packet.duplicate for packet in again] == [True, True, False, False]
    assert [packet.packet_id for packet in again[:2]] == [packet.packet_id for packet in first]
    assert len({packet.packet_id for packet in again}) == 4
    await client.hang_up()
    await sender.hang_up()


async def test_more_than_the_client_accepts_is_not_sent_to_it(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.url, "me", max_packet_size=100)
    await client.subscribe("a")

    client.send(mqtt5.PublishPacket("a", b"x" * 200))
    client.send(mqtt5.PublishPacket("a", b"small"))

    assert (await client.receive(mqtt5.PublishPacket)).payload == b"small"
    assert broker.dropped == 1
    await client.hang_up()


async def test_a_subscriber_that_does_not_read_loses_what_its_queue_cannot_hold(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_session, "MOST_QUEUED", 10)
    slow = await RawClient.connect(broker.url, "slow")
    await slow.subscribe("a")
    slow.stop_reading()
    sender = await RawClient.connect(broker.url, "sender")
    sent = 0
    while not broker.dropped and sent < 200:
        sender.send(mqtt5.PublishPacket("a", bytes(1 << 20), qos=QOS1, packet_id=1))
        await sender.receive(mqtt5.PubAckPacket)
        sent += 1

    assert broker.dropped == 1
    slow.resume_reading()
    for _ in range(sent - 1):
        assert len((await slow.receive(mqtt5.PublishPacket)).payload) == 1 << 20
    await sender.ping()
    await slow.hang_up()
    await sender.hang_up()


async def test_the_broker_says_when_it_stops(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.url, "me")

    await broker.stop()

    assert (await client.receive(mqtt5.DisconnectPacket)).reason_code == Reason.SERVER_SHUTTING_DOWN
    assert await client.receive() is None
    await client.hang_up()


@pytest.mark.parametrize(
    ("handling", "expected"),
    [
        (mqtt5.RetainHandling.SEND_ALWAYS, [True, True]),
        (mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS, [True, False]),
        (mqtt5.RetainHandling.SEND_NEVER, [False, False]),
    ],
)
async def test_retained_messages_come_when_the_subscriber_wants_them(
    broker: EmbeddedBroker, handling: mqtt5.RetainHandling, expected: list[bool]
) -> None:
    client = await RawClient.connect(broker.url, "me")
    client.send(mqtt5.PublishPacket("a", b"kept", retain=True))
    came = []

    for _ in range(2):
        await client.subscribe("a", retain_handling=handling)
        client.send(mqtt5.PingReqPacket())
        packet = await client.receive()
        came.append(isinstance(packet, mqtt5.PublishPacket))
        if came[-1]:
            assert packet.retain
            await client.receive(mqtt5.PingRespPacket)

    assert came == expected
    await client.hang_up()


async def test_subscription_options_are_honoured(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.url, "me")
    await client.subscribe("mine", no_local=True)
    await client.subscribe("plain", retain_as_published=False)
    await client.subscribe("published", retain_as_published=True)

    for topic in ("mine", "plain", "published"):
        client.send(mqtt5.PublishPacket(topic, b"x", retain=True))

    received = [await client.receive(mqtt5.PublishPacket) for _ in range(2)]
    assert [(packet.topic, packet.retain) for packet in received] == [("plain", False), ("published", True)]
    client.send(mqtt5.UnsubscribePacket(2, ["plain", "never"]))
    assert (await client.receive(mqtt5.UnsubAckPacket)).reason_codes == [
        mqtt5.UnsubAckReasonCode.SUCCESS,
        mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED,
    ]
    await client.hang_up()


async def test_properties_pass_through_and_overlapping_subscriptions_deliver_once(
    broker: EmbeddedBroker,
) -> None:
    client = await RawClient.connect(broker.url, "me")
    await client.subscribe("a/#", max_qos=mqtt5.QoS.AT_MOST_ONCE)
    await client.subscribe("a/b", max_qos=QOS1)

    client.send(
        mqtt5.PublishPacket(
            "a/b", b"x", qos=QOS1, packet_id=1, content_type="text", user_properties=[("k", "v")]
        )
    )

    packet = await client.receive(mqtt5.PublishPacket)
    assert (packet.qos, packet.content_type, packet.user_properties) == (QOS1, "text", [("k", "v")])
    await client.receive(mqtt5.PubAckPacket)
    await client.ping()
    await client.hang_up()
