"""Reads a connection: many packets at a time, and messages without a detour.

paho reads each packet by several calls and hands a message through four layers, which takes all of a core at
10,000 messages a second. Here messages are cut out of what has arrived and acknowledged together; every other
packet is paho's.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import PUBACK, PUBLISH
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket

from resonator.bus.port import MAX_PACKET_BYTES, Delivery

_PIECE = 64 * 1024
_PIECES = 64
"""How many reads are made before others have their turn: one of TLS gives a record, often a single packet."""
_FINE = MQTTErrorCode.MQTT_ERR_SUCCESS


class _Malformed(ValueError):
    """What arrived is not MQTT."""


class Reading:
    """Called whenever there is something to read for `paho`; `sink` takes the messages."""

    def __init__(self, paho: Any, sink: Callable[[Delivery], None]) -> None:
        self._paho = paho
        self._sink = sink
        self._arrived = bytearray()
        self._piece = memoryview(bytearray(_PIECE))
        self._taken = bytearray()
        """Acknowledgements that are due."""

    def __call__(self) -> None:
        """Take in what is there; that a connection has ended is paho's to tell."""
        code = self._receive()
        try:
            handled = self._cut()
        except (_Malformed, MalformedPacket, IndexError):
            handled = MQTTErrorCode.MQTT_ERR_PROTOCOL
        if self._taken:
            self._paho._packet_queue(PUBACK, bytes(self._taken), 0, 0)
            self._taken.clear()
        if handled or code:
            self._paho._loop_rc_handle(handled or code)

    def _receive(self) -> MQTTErrorCode:
        sock = self._paho.socket()
        if sock is None:
            return _FINE
        try:
            for _ in range(_PIECES):
                count = sock.recv_into(self._piece)
                if count == 0:
                    return MQTTErrorCode.MQTT_ERR_CONN_LOST
                self._arrived += self._piece[:count]
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except ssl.SSLWantWriteError:
            self._paho._call_socket_register_write()
        except OSError:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        self._paho._last_bytes_received = time.monotonic()
        return _FINE

    def _cut(self) -> MQTTErrorCode:
        """Handle the whole packets among what has arrived."""
        start, code = 0, _FINE
        with memoryview(self._arrived) as arrived:
            while not code and (found := _frame(arrived, start)) is not None:
                body, end = found
                if arrived[start] & 0xF0 == PUBLISH:
                    self._publish(arrived[start], arrived[body:end])
                else:
                    code = self._pass_on(arrived[start], arrived[body:end])
                start = end
        del self._arrived[:start]
        return code

    def _publish(self, head: int, body: memoryview) -> None:
        place = 2 + _number(body, 0)
        topic = bytes(body[2:place])
        if head & 0x06:
            self._taken += b"\x40\x02" + body[place : place + 2]
            place += 2
        length, place = _varint(body, place)
        place += length  # no meaning lives in properties
        if place > len(body):
            raise _Malformed
        try:
            name = topic.decode()
        except UnicodeDecodeError:
            raise _Malformed from None
        self._sink(Delivery(name, bytes(body[place:]), bool(head & 0x01)))

    def _pass_on(self, head: int, body: memoryview) -> MQTTErrorCode:
        self._paho._in_packet.update(
            command=head, have_remaining=1, remaining_length=len(body), packet=bytearray(body), pos=0
        )
        code: MQTTErrorCode = self._paho._packet_handle()
        return code


def _frame(data: memoryview, start: int) -> tuple[int, int] | None:
    """Return where the body of the packet at `start` begins and ends; None where it is not all here."""
    try:
        length, body = _varint(data, start + 1)
    except IndexError:
        return None
    if length > MAX_PACKET_BYTES:
        raise _Malformed
    end = body + length
    return (body, end) if end <= len(data) else None


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Return the number of up to four bytes at `place`, and where it ends."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _Malformed


def _number(data: memoryview, place: int) -> int:
    return data[place] << 8 | data[place + 1]
