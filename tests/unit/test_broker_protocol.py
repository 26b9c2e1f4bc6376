import asyncio
from collections.abc import AsyncIterator

import mqtt5
import pytest

from fakes.brokers import embedded
from fakes.raw_mqtt import RawClient
from resonator.errors import InputInvalid
from resonator_hub.broker import EmbeddedBroker

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
