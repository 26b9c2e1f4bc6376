import itertools

import mqtt5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonator_hub.broker.framing import Framer, ProtocolViolation

NAME = "Näme"
PAIRS = [("schlüssel", "wért")]
QOS1 = mqtt5.QoS.AT_LEAST_ONCE
PACKETS = [
    mqtt5.ConnectPacket(
        NAME,
        username=NAME,
        password=b"\xff",
        will=mqtt5.Will("t/ü", payload=b"\xff", content_type=NAME, user_properties=PAIRS),
        authentication_method=NAME,
        authentication_data=b"\xff",
        session_expiry_interval=9,
        max_packet_size=999,
        user_properties=PAIRS,
    ).write(),
    mqtt5.PublishPacket(
        "t/ü",
        b"\xff",
        qos=QOS1,
        packet_id=3,
        content_type=NAME,
        response_topic=NAME,
        correlation_data=b"\xff",
        message_expiry_interval=5,
        payload_format_indicator=1,
        user_properties=PAIRS,
    ).write(),
    mqtt5.PublishPacket("t/ü", b"\xff").write(),
    mqtt5.PubAckPacket(3).write(),
    mqtt5.PubAckPacket(
        3, reason_code=mqtt5.PubAckReasonCode.QUOTA_EXCEEDED, reason_str=NAME, user_properties=PAIRS
    ).write(),
    mqtt5.PubRelPacket(3, reason_str=NAME).write(),
    mqtt5.SubscribePacket(
        1, [mqtt5.TopicFilter("t/ü"), mqtt5.TopicFilter("#")], subscription_id=300, user_properties=PAIRS
    ).write(),
    mqtt5.UnsubscribePacket(1, ["t/ü", "#"], user_properties=PAIRS).write(),
    mqtt5.PingReqPacket().write(),
    mqtt5.DisconnectPacket().write(),
    mqtt5.DisconnectPacket(reason_str=NAME, session_expiry_interval=4, user_properties=PAIRS).write(),
    mqtt5.AuthPacket(authentication_method=NAME, reason_str=NAME).write(),
]


def read_all(stream: bytes, cuts: list[int]) -> list[mqtt5.Packet]:
    """Feed `stream` in pieces to a framer and return the packets."""
    framer = Framer(1 << 20)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [packet for start, end in itertools.pairwise(edges) for packet in framer.feed(stream[start:end])]


@given(st.lists(st.sampled_from(PACKETS), max_size=5), st.lists(st.integers(0, 2000), max_size=8))
def test_packets_come_out_whole_however_the_stream_is_cut(packets: list[bytes], cuts: list[int]) -> None:
    assert [packet.write() for packet in read_all(b"".join(packets), cuts)] == packets


@settings(max_examples=500)
@given(st.sampled_from(PACKETS), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3))
def test_damaged_packets_are_read_or_refused_and_never_panic(
    packet: bytes, damage: list[tuple[int, int]]
) -> None:
    damaged = bytearray(packet)
    for place, value in damage:
        damaged[place % len(damaged)] = value

    outcome: list[mqtt5.Packet] | ProtocolViolation
    try:
        outcome = read_all(bytes(damaged), [])
    except ProtocolViolation as violation:
        outcome = violation

    assert isinstance(outcome, list) or outcome.reason >= 0x80


@pytest.mark.parametrize("packet", [packet for packet in PACKETS if "ü".encode() in packet])
def test_text_that_is_not_utf8_is_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="not UTF-8") as caught:
        read_all(packet.replace("ü".encode(), b"\xff\xff"), [])

    assert caught.value.reason == mqtt5.DisconnectReasonCode.MALFORMED_PACKET


def test_a_packet_over_the_limit_is_refused_at_its_header() -> None:
    framer = Framer(100)
    assert len(list(framer.feed(mqtt5.PublishPacket("a", bytes(93)).write()))) == 1

    with pytest.raises(ProtocolViolation, match="101 bytes; at most 100"):
        list(framer.feed(mqtt5.PublishPacket("a", bytes(95)).write()[:2]))
