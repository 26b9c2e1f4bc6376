"""Bytes from a socket become MQTT packets, whatever pieces they arrive in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import SupportsInt

import mqtt5

from resonator_hub.broker.text import check_text

CONNECT = 1
_MOST_LENGTH_BYTES = 4


class ProtocolViolation(Exception):
    """A peer broke the protocol: `reason` is the MQTT 5 reason code, `packet_type` that of the bad packet."""

    def __init__(self, reason: SupportsInt, detail: str, packet_type: int | None = None) -> None:
        super().__init__(detail)
        self.reason = int(reason)
        self.packet_type = packet_type


class Framer:
    """Cuts a stream of bytes into packets of at most `max_packet_bytes`."""

    def __init__(self, max_packet_bytes: int) -> None:
        self._max_packet_bytes = max_packet_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[mqtt5.Packet]:
        """Yield the packets that `data` completes; raises ProtocolViolation at the first bad one."""
        self._buffer += data
        start = 0
        try:
            while (end := self._frame_end(start)) is not None and end <= len(self._buffer):
                with memoryview(self._buffer) as view, view[start:end] as frame:
                    packet = _decode(frame)
                start = end
                yield packet
        finally:
            del self._buffer[:start]

    def _frame_end(self, start: int) -> int | None:
        """Return where the packet at `start` ends, or None while its fixed header is incomplete."""
        length = 0
        for count in range(_MOST_LENGTH_BYTES):
            position = start + 1 + count
            if position >= len(self._buffer):
                return None
            byte = self._buffer[position]
            length |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:
                return self._checked(start, position + 1 + length)
        raise self._violation(
            start, mqtt5.DisconnectReasonCode.MALFORMED_PACKET, "the remaining length has more than 4 bytes"
        )

    def _checked(self, start: int, end: int) -> int:
        if end - start > self._max_packet_bytes:
            raise self._violation(
                start,
                mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE,
                f"a packet of {end - start} bytes; at most {self._max_packet_bytes} are accepted",
            )
        return end

    def _violation(self, start: int, reason: SupportsInt, detail: str) -> ProtocolViolation:
        return ProtocolViolation(reason, detail, self._buffer[start] >> 4)


def _decode(frame: memoryview) -> mqtt5.Packet:
    """Decode one whole packet; raises ProtocolViolation."""
    reason: SupportsInt = mqtt5.DisconnectReasonCode.MALFORMED_PACKET
    try:
        check_text(frame)
        packet, _ = mqtt5.read(frame)
    except UnicodeDecodeError:
        raise ProtocolViolation(reason, "text that is not UTF-8", frame[0] >> 4) from None
    except (ValueError, IndexError) as error:
        if "protocol version" in str(error):
            reason = mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION
        raise ProtocolViolation(reason, str(error), frame[0] >> 4) from None
    return packet
