"""Changes to messages that leave them msgpack: a fuzzer of bytes seldom gets past the parser by itself."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack

from resonator.messages import TYPES

NESTED: Any = 1
for _ in range(20):
    NESTED = [NESTED]
ODD: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 2**31, 2**62, 2**64 - 1, -(2**63), 0.0, -0.0, 1e300, float("nan"), float("inf")),
    *(
        "",
        "a",
        "0",
        "90s",
        "1e400",
        "9" * 30,
        "x" * 3000,
        "\0",
        "\x1b[2J",
        "a/b",
        "#",
        b"",
        b"a",
        b"\xff" * 300,
    ),
    *([], {}, [[]], {"a": 1}, NESTED, ["a"] * 130, {b"a": 1}, msgpack.ExtType(5, b"x")),
    *TYPES,
)


def changed(data: bytes, seed: int) -> bytes | None:
    """Return a message with a value replaced, moved, doubled or taken out; None for what is no message."""
    random = Random(seed)
    try:
        plain = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    places = list(_places(plain))
    if not places:
        return None
    for _ in range(random.randint(1, 2)):
        _change(*random.choice(places), places, random)
    return _packed(plain)


def _places(value: Any) -> Any:
    """Yield (container, key) of every value within another."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield value, key
        yield from _places(child)


def _change(container: Any, key: Any, places: list[Any], random: Random) -> None:
    try:
        match random.randrange(5):
            case 0:
                del container[key]
            case 1:
                other, there = random.choice(places)
                container[key] = other[there]
            case 2 if isinstance(container, dict):
                container[random.choice(("a", "job", "v", "body", b"job", 5))] = container[key]
            case 3 if isinstance(container, list):
                container.extend([container[key]] * random.choice((1, 20, 130)))
            case _:
                container[key] = random.choice(ODD)
    except (KeyError, IndexError):
        pass  # gone by an earlier change


def _packed(plain: Any) -> bytes | None:
    try:
        data: bytes = msgpack.packb(plain)
    except (ValueError, OverflowError, TypeError):
        return None  # it holds itself
    return data
