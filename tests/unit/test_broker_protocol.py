import asyncio
from collections.abc import AsyncIterator

import mqtt5
import pytest

from fakes.brokers import embedded
from fakes.raw_mqtt import RawClient
from resonator.errors import InputInvalid
from resonator_hub.broker import EmbeddedBroker
from resonator_hub.broker import connection as broker_connection
from resonator_hub.broker import session as broker_session

CONNECT = mqtt5.ConnectPacket("me").write()
CONNECT_V4 = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02me"
QOS1 = mqtt5.QoS.AT_LEAST_ONCE
Reason = mqtt5.DisconnectReasonCode


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    async with embedded() as running:
        yield running


async def still_serves(broker: EmbeddedBroker) -> bool:
    """Whether a decent client can still talk to itself through the broker."""
    client = await RawClient.connect(broker.url, "decent")
    await client.subscribe("echo")
    client.send(mqtt5.PublishPacket("echo", b"hello"))
    echoed = (await client.receive(mqtt5.PublishPacket)).payload == b"hello"
    await client.hang_up()
    return echoed


def raw_subscribe(*patterns: str) -> bytes:
    """A SUBSCRIBE packet with filters that the codec would not write."""
    body = b"\x00\x01\x00"
    for pattern in patterns:
        body += len(pattern).to_bytes(2, "big") + pattern.encode() + b"\x01"
    return b"\x82" + bytes([len(body)]) + body


# --- where it listens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.org", ""])
def test_an_address_that_others_reach_is_refused(host: str) -> None:
    with pytest.raises(InputInvalid, match="loopback only"):
        EmbeddedBroker(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
async def test_loopback_is_accepted(host: str) -> None:
    broker = EmbeddedBroker(host)
    await broker.start()

    assert await still_serves(broker)
    await broker.stop()


async def test_a_taken_port_is_said_in_a_sentence(broker: EmbeddedBroker) -> None:
    with pytest.raises(InputInvalid, match="cannot listen on mqtt://127"):
        await EmbeddedBroker(port=broker.port).start()


# --- bad input before and after the handshake -----------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: broker.example.org:1883\r\nUser-Agent: browser\r\nAccept: */*\r\n\r\n",
        b"\x00\x00",
        b"\xff" * 64,
        b"\x30\xff\xff\xff\xff\x01",
        mqtt5.PingReqPacket().write(),
        mqtt5.PublishPacket("a", b"b").write(),
    ],
)
async def test_who_does_not_introduce_himself_is_hung_up_on(broker: EmbeddedBroker, garbage: bytes) -> None:
    client = await RawClient.dial(broker.url)

    client.send(garbage)

    assert await client.receive() is None
    assert await still_serves(broker)
    await client.hang_up()


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (CONNECT_V4, mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION),
        (CONNECT.replace(b"MQTT", b"MQTZ"), mqtt5.ConnAckReasonCode.MALFORMED_PACKET),
        (CONNECT.replace(b"me", b"\xff\xff"), mqtt5.ConnAckReasonCode.MALFORMED_PACKET),
        (b"\x10\xff\xff\xff\x7f", mqtt5.ConnAckReasonCode.PACKET_TOO_LARGE),
        (
            mqtt5.ConnectPacket("me", authentication_method="magic").write(),
            mqtt5.ConnAckReasonCode.BAD_AUTHENTICATION_METHOD,
        ),
        (
            mqtt5.ConnectPacket("me", will=mqtt5.Will("a/x")).write().replace(b"a/x", b"a/#"),
            mqtt5.ConnAckReasonCode.TOPIC_NAME_INVALID,
        ),
        (
            mqtt5.ConnectPacket("me", will=mqtt5.Will("a", qos=mqtt5.QoS.EXACTLY_ONCE)).write(),
            mqtt5.ConnAckReasonCode.QUALITY_NOT_SUPPORTED,
        ),
    ],
)
async def test_a_bad_connect_is_told_why(
    broker: EmbeddedBroker, packet: bytes, reason: mqtt5.ConnAckReasonCode
) -> None:
    client = await RawClient.dial(broker.url)

    client.send(packet)

    assert (await client.receive(mqtt5.ConnAckPacket)).reason_code == reason
    assert await client.receive() is None
    assert await still_serves(broker)
    await client.hang_up()


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\x00\x00", Reason.MALFORMED_PACKET),
        (b"\x30\xff\xff\xff\xff\x01", Reason.MALFORMED_PACKET),
        (b"\x36\x05\x00\x01a\x00\x00", Reason.MALFORMED_PACKET),
        (b"\x30\x05\x00\x01\xff\x00x", Reason.MALFORMED_PACKET),
        (b"\x30\x03\x00\x09a", Reason.MALFORMED_PACKET),
        (b"\xc0\x01\x00", Reason.MALFORMED_PACKET),
        (b"\x30\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
        (CONNECT, Reason.PROTOCOL_ERROR),
        (CONNECT_V4, Reason.PROTOCOL_ERROR),
        (mqtt5.ConnAckPacket().write(), Reason.PROTOCOL_ERROR),
        (mqtt5.PublishPacket("a/x", b"").write().replace(b"a/x", b"a/+"), Reason.TOPIC_NAME_INVALID),
        (mqtt5.PublishPacket("a\0b", b"").write(), Reason.TOPIC_NAME_INVALID),
        (
            mqtt5.PublishPacket("a", b"", qos=mqtt5.QoS.EXACTLY_ONCE, packet_id=1).write(),
            Reason.QOS_NOT_SUPPORTED,
        ),
        (mqtt5.PublishPacket("a", b"", qos=QOS1, packet_id=0).write(), Reason.PROTOCOL_ERROR),
        (mqtt5.PublishPacket("a", b"", topic_alias=1).write(), Reason.TOPIC_ALIAS_INVALID),
        (b"\x82\x03\x00\x01\x00", Reason.PROTOCOL_ERROR),
        (mqtt5.SubscribePacket(0, [mqtt5.TopicFilter("a")]).write(), Reason.PROTOCOL_ERROR),
        (
            mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("a")], subscription_id=7).write(),
            Reason.SUBSCRIPTION_IDS_NOT_SUPPORTED,
        ),
        (b"\xa2\x03\x00\x01\x00", Reason.PROTOCOL_ERROR),
        (mqtt5.DisconnectPacket(session_expiry_interval=9).write(), Reason.PROTOCOL_ERROR),
    ],
)
async def test_a_bad_packet_ends_that_connection_with_the_reason(
    broker: EmbeddedBroker, packet: bytes, reason: mqtt5.DisconnectReasonCode
) -> None:
    bystander = await RawClient.connect(broker.url, "bystander")
    client = await RawClient.connect(broker.url, "me")

    client.send(packet)

    assert (await client.receive(mqtt5.DisconnectPacket)).reason_code == reason
    assert await client.receive() is None
    await bystander.ping()
    assert await still_serves(broker)
    await client.hang_up()
    await bystander.hang_up()


@pytest.mark.parametrize("pattern", ["", "a#", "#/a", "a/#/b", "a+/b"])
async def test_an_invalid_filter_is_refused_and_the_others_are_granted(
    broker: EmbeddedBroker, pattern: str
) -> None:
    client = await RawClient.connect(broker.url, "me")

    client.send(raw_subscribe(pattern, "good"))

    assert (await client.receive(mqtt5.SubAckPacket)).reason_codes == [
        mqtt5.SubAckReasonCode.TOPIC_FILTER_INVALID,
        mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE,
    ]
    await client.hang_up()


async def test_shared_subscriptions_are_refused(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.url, "me")

    assert (
        await client.subscribe("$share/group/a") == mqtt5.SubAckReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
    )
    assert not client.connack.shared_subscription_available
    await client.hang_up()


async def test_packets_may_come_in_any_pieces(broker: EmbeddedBroker) -> None:
    client = await RawClient.dial(broker.url)
    stream = CONNECT + mqtt5.PublishPacket("a", b"x" * 300, qos=QOS1, packet_id=5).write()
    for byte in stream:
        client.send(bytes([byte]))
        await asyncio.sleep(0)

    await client.receive(mqtt5.ConnAckPacket)
    assert (await client.receive(mqtt5.PubAckPacket)).packet_id == 5
    await client.hang_up()


async def test_a_truncated_packet_and_a_hang_up_disturb_nobody(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.url, "me")
    client.send(mqtt5.PublishPacket("a", b"x" * 1000).write()[:100])

    await client.hang_up()

    assert await still_serves(broker)


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
    assert await still_serves(broker)
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
