"""One point of the space: how an operator is cut into tiles that fit the vector registers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

ANNOTATION = "resonator.tile"
"""The attribute of a schedule's root block that says which tile it was made from."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A block of the output whose sums stay in registers while the whole reduction runs over it.

    `extents` is its size along each axis of the output; the last is computed in vectors of `lanes`. The
    blocks follow each other with the axes in `order`, outermost first. `unroll` steps of the innermost
    reduction are written out. What the operator reads is padded or packed for all blocks at once, or, with
    `pack`, anew within that many outer loops, where it stays in the cache.
    """

    extents: tuple[int, ...]
    lanes: int
    order: tuple[int, ...]
    unroll: int = 1
    pack: int = 0

    def __str__(self) -> str:
        extents, order = ("x".join(map(str, numbers)) for numbers in (self.extents, self.order))
        return f"extents {extents} lanes {self.lanes} order {order} unroll {self.unroll} pack {self.pack}"


_TEXT = re.compile(r"extents ([\dx]+) lanes (\d+) order ([\dx]+) unroll (\d+) pack (\d+)")


def parse(text: str) -> Tile | None:
    """Return the tile that `str` wrote, or None for any other text."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    extents, lanes, order, unroll, pack = found.groups()
    return Tile(_numbers(extents), int(lanes), _numbers(order), int(unroll), int(pack))


def tile_of(trace: Any) -> Tile | None:
    """Return the tile that an unpacked trace was made from, or None for one of MetaSchedule's space."""
    instructions, _decisions = trace
    for kind, inputs, attributes, _ in instructions:
        if str(kind) == "Annotate" and str(attributes[0]) == ANNOTATION:
            return parse(str(inputs[1]).strip('"'))
    return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("x"))
