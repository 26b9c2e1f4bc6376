"""Checks that a packet's text is UTF-8, before the codec sees it: the codec panics on text that is not."""

from __future__ import annotations

from collections.abc import Callable

_CONNECT, _PUBLISH, _PUBACK, _SUBSCRIBE, _UNSUBSCRIBE, _DISCONNECT, _AUTH = 1, 3, 4, 8, 10, 14, 15


class _End(Exception):
    """The packet is shorter than it says, or of unknown form; the codec will say so."""


class _Cursor:
    """Walks over the fields of one packet; `text()` raises UnicodeDecodeError."""

    def __init__(self, packet: memoryview) -> None:
        self._packet = packet
        self._at = 1
        self.number()  # the remaining length

    @property
    def more(self) -> bool:
        return self._at < len(self._packet)

    def skip(self, count: int) -> memoryview:
        start, self._at = self._at, self._at + count
        if self._at > len(self._packet):
            raise _End
        return self._packet[start : self._at]

    def byte(self) -> int:
        return self.skip(1)[0]

    def number(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise _End

    def binary(self) -> memoryview:
        return self.skip(int.from_bytes(self.skip(2), "big"))

    def text(self) -> None:
        str(self.binary(), "utf-8")

    def properties(self) -> None:
        end = self.number() + self._at
        while self._at < end:
            walk = _PROPERTIES.get(self.number())
            if walk is None:
                raise _End
            walk(self)


def _pair(cursor: _Cursor) -> None:
    cursor.text()
    cursor.text()


def _fixed(size: int) -> Callable[[_Cursor], object]:
    return lambda cursor: cursor.skip(size)


_PROPERTIES: dict[int, Callable[[_Cursor], object]] = {
    **dict.fromkeys((1, 23, 25, 36, 37, 40, 41, 42), _fixed(1)),
    **dict.fromkeys((19, 33, 34, 35), _fixed(2)),
    **dict.fromkeys((2, 17, 24, 39), _fixed(4)),
    **dict.fromkeys((3, 8, 18, 21, 26, 28, 31), _Cursor.text),
    **dict.fromkeys((9, 22), _Cursor.binary),
    11: _Cursor.number,
    38: _pair,
}


def check_text(packet: memoryview) -> None:
    """Raise UnicodeDecodeError if any text in `packet`, one whole MQTT packet, is not UTF-8."""
    walk = _PACKETS.get(packet[0] >> 4)
    if walk is not None:
        try:
            walk(_Cursor(packet), packet[0] & 0x0F)
        except _End:
            return


def _walk_publish(cursor: _Cursor, flags: int) -> None:
    cursor.text()
    if flags & 0x06:
        cursor.skip(2)
    cursor.properties()


def _walk_connect(cursor: _Cursor, flags: int) -> None:
    cursor.text()
    cursor.byte()
    given = cursor.byte()
    cursor.skip(2)
    cursor.properties()
    cursor.text()
    if given & 0x04:  # a will
        cursor.properties()
        cursor.text()
        cursor.binary()
    if given & 0x80:  # a user name
        cursor.text()


def _walk_filters(cursor: _Cursor, flags: int, options: int) -> None:
    cursor.skip(2)
    cursor.properties()
    while cursor.more:
        cursor.text()
        cursor.skip(options)


def _walk_reason(cursor: _Cursor, flags: int, before: int) -> None:
    cursor.skip(before)
    if cursor.more:
        cursor.byte()
    if cursor.more:
        cursor.properties()


_PACKETS: dict[int, Callable[[_Cursor, int], None]] = {
    _CONNECT: _walk_connect,
    _PUBLISH: _walk_publish,
    **{kind: lambda cursor, flags: _walk_reason(cursor, flags, 2) for kind in range(_PUBACK, _SUBSCRIBE)},
    _SUBSCRIBE: lambda cursor, flags: _walk_filters(cursor, flags, 1),
    _UNSUBSCRIBE: lambda cursor, flags: _walk_filters(cursor, flags, 0),
    **dict.fromkeys((_DISCONNECT, _AUTH), lambda cursor, flags: _walk_reason(cursor, flags, 0)),
}
