"""How deep msgpack is nested, seen from its heads alone: before a parser makes room for what these promise.

A head of five bytes announces up to 2**32 elements, and parsers allocate a place for each at once: a
thousand heads within each other, in a message of 5 kB, would cost them 80 MB or more.
"""

from __future__ import annotations

_ARRAY16, _ARRAY32, _MAP16, _MAP32 = 0xDC, 0xDD, 0xDE, 0xDF

# By its first byte: how many bytes a scalar has in all, and how many of them tell how many more follow
_SCALARS = {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
_SCALARS |= {0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_SIZES = [_SCALARS.get(head, 1) for head in range(256)]


MOST_ELEMENTS = 500_000
"""Of a message: a list of ten thousand boxes has as many; a parser takes about a microsecond for each."""


def too_deep(data: bytes, most: int) -> bool:
    """Whether containers lie within each other deeper than `most`, or promise more than there can be.

    More than `MOST_ELEMENTS` are too many as well. False for what is no msgpack: its parser will tell.
    """
    position, end = 0, len(data)
    missing = [1]  # of each open container: its elements that are still to come
    promised = 0
    while position < end and missing:
        missing[-1] -= 1
        head = data[position]
        if head in _BYTES:
            width = _BYTES[head]
            position += 1 + width + int.from_bytes(data[position + 1 : position + 1 + width], "big")
        elif 0xA0 <= head <= 0xBF:
            position += 1 + (head & 0x1F)
        elif 0x80 <= head <= 0x9F or _ARRAY16 <= head <= _MAP32:
            elements, size = _container(data, position)
            position += size
            missing.append(elements)
            promised += elements
            if len(missing) > most + 1 or elements > end - position or promised > MOST_ELEMENTS:
                return True
        else:
            position += _SIZES[head]
        while missing and not missing[-1]:
            missing.pop()
    return False


def _container(data: bytes, position: int) -> tuple[int, int]:
    """Return how many elements a container announces, and how many bytes it takes to say so."""
    head = data[position]
    if head < 0xA0:
        elements, size = head & 0x0F, 1
    else:
        size = 3 if head in (_ARRAY16, _MAP16) else 5
        elements = int.from_bytes(data[position + 1 : position + size], "big")
    is_map = head <= 0x8F or head >= _MAP16
    return elements * (2 if is_map else 1), size
