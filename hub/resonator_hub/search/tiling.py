"""The space of register tiles, searched around the best tiles and the most promising ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from resonator_hub import ir
from resonator_hub.search import tiles
from resonator_hub.search.tiles import Tile
from resonator_hub.search.tried import Tried

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.s_tir import Schedule

BEST = 6
"""How many of the best tiles are varied."""
GREED = 8.0
"""How much the search prefers tiles that promise more: the power that promises are raised to."""


def explore(
    module: IRModule, target: str, tried: Sequence[Tried], size: int, seed: int
) -> Iterator[list[Schedule]]:
    """Yield pools of `size` schedules, until the space is exhausted.

    Half of a pool varies one choice of the best tiles known; the other half is drawn at random, better
    promises more often. Yields nothing for operators without tiles.
    """
    space = tiles.space_of(module, target)
    random = Random(seed)
    best = _tiles(one.trace for one in sorted(tried, key=lambda one: (one.latency_s, one.trace)))
    left = {tile: promise**GREED for tile, promise in space.items() if tile not in best}
    likely = [near for tile in best[:BEST] for near in tiles.neighbours(tile, left)]
    while left:
        yield _made(module, target, _pool(likely, left, size, random))


def near(module: IRModule, target: str, hints: Sequence[bytes]) -> list[Schedule]:
    """Return the schedules whose tiles are most like those of `hints`, traces of similar operators."""
    space = tiles.space_of(module, target)
    return _made(module, target, [alike for hint in _tiles(hints) if (alike := tiles.nearest(hint, space))])


def _made(module: IRModule, target: str, chosen: Sequence[Tile]) -> list[Schedule]:
    made = (tiles.schedule(module, tile, target) for tile in dict.fromkeys(chosen))
    return [schedule for schedule in made if schedule is not None]


def _pool(likely: list[Tile], left: dict[Tile, float], size: int, random: Random) -> list[Tile]:
    """Take up to `size` tiles out of `left`, half of them from `likely`."""
    varied = _draw({tile: left[tile] for tile in likely if tile in left}, size // 2, random)
    for tile in varied:
        del left[tile]
    drawn = _draw(left, size - len(varied), random)
    for tile in drawn:
        del left[tile]
    return varied + drawn


def _draw(weights: Mapping[Tile, float], size: int, random: Random) -> list[Tile]:
    """Draw without replacement, in proportion to weights (Efraimidis and Spirakis, 2006)."""
    keys = {tile: random.random() ** (1.0 / weight) for tile, weight in weights.items()}
    return sorted(keys, key=lambda tile: -keys[tile])[:size]


def _tiles(traces: Iterable[bytes]) -> list[Tile]:
    found = (tiles.tile_of(ir.unpack_trace(trace)) for trace in traces)
    return [tile for tile in found if tile is not None]
