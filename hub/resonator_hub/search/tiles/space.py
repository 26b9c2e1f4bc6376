"""Which tiles are worth a thought, and how much each promises before anything was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import inf, log2, prod
from typing import TYPE_CHECKING

from resonator_hub.processor import Processor, processor_of
from resonator_hub.search.tiles.operator import Operator, understand
from resonator_hub.search.tiles.tile import Tile

if TYPE_CHECKING:
    from tvm.ir import IRModule

_UNROLLS = (1, 2, 4)
_LONGEST = 256
"""Elements of a tile along one axis; longer ones do not fit the registers."""
_MOST_WRITTEN = 96
"""How long a whole reduction may be to be written out.

Then vectors may have any number of lanes, such as the 34 or 68 channels of a group: only where sums are
carried from step to step does LLVM take such vectors apart. Measured: 78 GFLOP/s for 68 lanes, 48 for 4.
"""
_SPARE = 2
"""Vector registers that the compiler needs for what it multiplies with."""
_LATENCY = 8
"""Sums that must be under way at once to keep the multipliers busy: two units, four cycles each."""
_LOAD = 0.7
"""What a load costs beside a multiplication; some are hidden behind one."""
_SPILLED = 0.4
"""What is left of the speed where the compiler runs out of registers."""
_PACKED_AGAIN = 0.85
"""Packing within a loop over outputs that read the same packs the same again."""


def space_of(module: IRModule, target: str) -> dict[Tile, float]:
    """Return the tiles of an operator with their promises; none for GPUs or where nothing is reduced."""
    processor = processor_of(target)
    operator = understand(module) if processor else None
    return points(operator, processor) if processor and operator else {}


def points(operator: Operator, processor: Processor) -> dict[Tile, float]:
    """Return every tile of the space, with its promise: the share of the processor's peak to hope for."""
    space = {}
    for tile in _tiles(operator, processor):
        promise = _promise(tile, operator, processor)
        if promise > 0:
            space[tile] = promise
    return space


def nearest(tile: Tile, space: dict[Tile, float]) -> Tile | None:
    """Return the tile of the space that is most like one of another operator, or None of an empty space."""
    return min(space, key=lambda other: (_distance(tile, other), -space[other], str(other)), default=None)


def neighbours(tile: Tile, space: dict[Tile, float]) -> list[Tile]:
    """Return the tiles of the space that differ from `tile` by one choice only."""
    return [other for other in space if sum(_differences(tile, other)) == 1]


def _tiles(operator: Operator, processor: Processor) -> Iterator[Tile]:
    widest = processor.bits // operator.bits
    for lanes, unroll in _steps(operator, widest):
        sizes = [_divisors(extent) for extent in operator.axes[:-1]]
        vectors = [extent for extent in _divisors(operator.period) if extent % lanes == 0]
        for extents in product(*sizes, vectors):
            if prod(extents) // lanes * _registers(lanes, widest) > processor.registers - _SPARE:
                continue
            for order in _orders(operator, extents):
                yield from _packings(Tile(extents, lanes, order, unroll), operator)


def _steps(operator: Operator, widest: int) -> Iterator[tuple[int, int]]:
    """Yield the lanes of a vector, each with how many steps of the reduction are written out."""
    yield from product(_lanes(operator.period, widest), _unrolls(operator))
    steps = prod(operator.reductions)
    if operator.period % (widest // 2) and 1 < steps == operator.reductions[-1] <= _MOST_WRITTEN:
        yield from ((operator.period // share, steps) for share in (1, 2) if operator.period % share == 0)


def _registers(lanes: int, widest: int) -> int:
    return -(-lanes // widest)


def _lanes(extent: int, widest: int) -> list[int]:
    """Return the vectors that divide an extent, down to a quarter of the widest; the extent itself else."""
    fitting = [widest // share for share in (1, 2, 4) if widest >= share and extent % (widest // share) == 0]
    return fitting or [extent] * (1 < extent <= widest)


def _divisors(extent: int) -> list[int]:
    return [size for size in range(1, min(extent, _LONGEST) + 1) if extent % size == 0]


def _orders(operator: Operator, extents: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the orders of the outer loops: the last axis at each place among those that loop."""
    *others, last = range(len(extents))
    if extents[last] == operator.axes[last]:
        return [(*others, last)]
    looped = [place for place in others if extents[place] < operator.axes[place]]
    return [(*others[:place], last, *others[place:]) for place in (*looped, len(others))]


def _unrolls(operator: Operator) -> list[int]:
    return [steps for steps in _UNROLLS if operator.reductions[-1] % steps == 0]


def _packings(tile: Tile, operator: Operator) -> Iterator[Tile]:
    """Yield the tile with what it reads packed at once, and within each outer loop that is worth it."""
    yield tile
    outer = [operator.axes[axis] // tile.extents[axis] for axis in tile.order]
    for depth in range(1, len(outer)):
        if outer[depth - 1] > 1 and prod(outer[depth:]) > 1:
            yield replace(tile, pack=depth)


def _promise(tile: Tile, operator: Operator, processor: Processor) -> float:
    """Estimate the share of the peak that a tile reaches: what it multiplies against what it must load."""
    widest = processor.bits // operator.bits
    each = _registers(tile.lanes, widest)
    sums = prod(tile.extents) // tile.lanes * each
    loads = sum(_loads(tile, axes, each) for axes in operator.reads)
    busy = min(1.0, sums / _LATENCY)
    fed = sums / (sums + _LOAD * loads)
    spilled = sums + min(_vectors(tile, axes, each) for axes in operator.reads) >= processor.registers
    blocks = prod(extent // size for extent, size in zip(operator.axes, tile.extents, strict=True))
    shared = blocks / (-(-blocks // processor.cores) * processor.cores)
    width = tile.lanes / (each * widest)
    again = not operator.reads[0].issuperset(tile.order[: tile.pack])
    return float(
        width**0.5 * busy * fed * shared * (_SPILLED if spilled else 1.0) * (_PACKED_AGAIN if again else 1.0)
    )


def _loads(tile: Tile, axes: frozenset[int], each: int) -> float:
    """Weigh the loads that one step of the reduction needs from a buffer that depends on `axes`.

    A vector takes `each` registers. Broadcasts are cheapest; vectors along an axis that also moves the window
    are not aligned.
    """
    if len(tile.extents) - 1 not in axes:
        return 0.5 * _vectors(tile, axes, each)
    return _vectors(tile, axes, each) * (2.0 if len(axes) > 1 else 1.0)


def _vectors(tile: Tile, axes: frozenset[int], each: int) -> int:
    """Count the registers, or single values to be broadcast, that one step reads from a buffer."""
    last = len(tile.extents) - 1
    vectors = tile.extents[last] // tile.lanes * each if last in axes else 1
    return vectors * prod(tile.extents[axis] for axis in axes if axis != last)


def _distance(tile: Tile, other: Tile) -> float:
    if len(tile.extents) != len(other.extents):
        return inf
    sizes = zip(tile.extents, other.extents, strict=True)
    return (
        sum(abs(log2(mine / its)) for mine, its in sizes)
        + abs(log2(tile.lanes / other.lanes))
        + 0.5 * (tile.order != other.order)
        + 0.25 * (tile.unroll != other.unroll)
        + 0.5 * (tile.pack != other.pack)
    )


def _differences(tile: Tile, other: Tile) -> tuple[bool, ...]:
    return (
        *(mine != its for mine, its in zip(tile.extents, other.extents, strict=True)),
        tile.lanes != other.lanes,
        tile.order != other.order,
        tile.unroll != other.unroll,
        tile.pack != other.pack,
    )
