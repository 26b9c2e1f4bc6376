"""Reading a connection: messages are cut out of whatever arrives, and acknowledged together."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import mqtt5
import pytest
from paho.mqtt.enums import MQTTErrorCode

from resonator.bus.port import MAX_PACKET_BYTES, Delivery
from resonator.bus.reading import Reading


class Paho:
    """What is left for paho to do: it notes what it was asked."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._in_packet: dict[str, Any] = {}
        self.queued: list[bytes] = []
        self.handled: list[tuple[int, bytes]] = []
        self.ended: list[MQTTErrorCode] = []

    def socket(self) -> socket.socket:
        return self._sock

    def _packet_queue(self, command: int, packet: bytes, mid: int, qos: int) -> None:
        self.queued.append(packet)

    def _packet_handle(self) -> MQTTErrorCode:
        self.handled.append((self._in_packet["command"], bytes(self._in_packet["packet"])))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _loop_rc_handle(self, code: MQTTErrorCode) -> None:
        self.ended.append(code)


class Wire:
    """Both ends of a connection."""

    def __init__(self) -> None:
        self.far, self._near = socket.socketpair()
        self._near.setblocking(False)
        self.paho = Paho(self._near)
        self.heard: list[Delivery] = []
        self.reading = Reading(self.paho, self.heard.append)

    def arrives(self, data: bytes) -> None:
        self.far.sendall(data)
        self.reading()

    def close(self) -> None:
        self.far.close()
        self._near.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


def said(topic: str, payload: bytes, packet_id: int | None = None, **options: Any) -> bytes:
    qos = mqtt5.QoS.AT_MOST_ONCE if packet_id is None else mqtt5.QoS.AT_LEAST_ONCE
    packet: bytes = mqtt5.PublishPacket(topic, payload, qos=qos, packet_id=packet_id, **options).write()
    return packet


def test_messages_are_taken_out_of_one_piece_and_acknowledged_together(wire: Wire) -> None:
    wire.arrives(said("a", b"1") + said("b", b"2", 7) + said("c", b"3", 300, retain=True) + said("d", b""))
    assert wire.heard == [
        Delivery("a", b"1", False),
        Delivery("b", b"2", False),
        Delivery("c", b"3", True),
        Delivery("d", b"", False),
    ]
    assert wire.paho.queued == [b"\x40\x02\x00\x07\x40\x02\x01\x2c"]


def test_messages_may_arrive_byte_by_byte_and_carry_properties(wire: Wire) -> None:
    packet = said("place", b"x" * 300, 9, user_properties=[("a", "b" * 200)], content_type="text")
    for place in range(len(packet)):
        assert wire.heard == []
        wire.arrives(packet[place : place + 1])
    assert wire.heard == [Delivery("place", b"x" * 300, False)]


def test_every_other_packet_is_passed_on_between_the_messages(wire: Wire) -> None:
    suback = mqtt5.SubAckPacket(3, [mqtt5.SubAckReasonCode(1)]).write()
    wire.arrives(said("a", b"1") + suback + said("b", b"2"))
    assert wire.paho.handled == [(suback[0], suback[2:])]
    assert [one.payload for one in wire.heard] == [b"1", b"2"]


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(b"\x30\xff\xff\xff\xff\x01", id="a length of five bytes"),
        pytest.param(b"\x30\xff\xff\xff\x7f", id=f"more than {MAX_PACKET_BYTES} bytes"),
        pytest.param(b"\x30\x05\x00\x09abc", id="a topic longer than its packet"),
        pytest.param(b"\x30\x05\x00\x02\xff\xfe\x00", id="a topic that is no text"),
        pytest.param(b"\x32\x03\x00\x01a", id="no packet id"),
        pytest.param(b"\x30\x04\x00\x01a\x7f", id="properties longer than the packet"),
        pytest.param(b"\x30\x00", id="an empty message"),
    ],
)
def test_attack_by_bytes_that_are_not_mqtt_ends_the_connection(wire: Wire, attack: bytes) -> None:
    wire.arrives(said("a", b"1", 5) + attack)
    assert [one.payload for one in wire.heard] == [b"1"]
    assert wire.paho.ended == [MQTTErrorCode.MQTT_ERR_PROTOCOL]


def test_the_end_of_a_connection_is_told_after_what_came_before_it(wire: Wire) -> None:
    wire.far.sendall(said("a", b"1"))
    wire.far.close()
    wire.reading()
    assert [one.payload for one in wire.heard] == [b"1"]
    assert wire.paho.ended == [MQTTErrorCode.MQTT_ERR_CONN_LOST]
