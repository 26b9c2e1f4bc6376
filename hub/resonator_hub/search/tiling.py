"""The space of register tiles, searched around the best tiles and the most promising ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    module: IRModule, target: str, tried: Sequence[Tried], hints: Sequence[bytes], size: int, seed: int
) -> Iterator[list[Schedule]]:
    """Yield pools of `size` schedules, until the space is exhausted.

    Half of a pool varies one choice of the best tiles known, `hints` of similar operators among them; the
    other half is drawn at random, better promises more often. Yields nothing for operators without tiles.
    """
    machine = tiles.machine_of(target)
    operator = tiles.understand(module) if machine else None
    if machine is None or operator is None:
        return
    space = tiles.points(operator, machine)
    random = Random(seed)
    best = _best(tried)
    left = {tile: promise**GREED for tile, promise in space.items() if tile not in best}
    likely = [near for hint in _tiles(hints) if (near := tiles.nearest(hint, left))]
    likely += [near for tile in best[:BEST] for near in tiles.neighbours(tile, left)]
    compiled_for = ir.parse_target(target)
    while left:
        pool = _pool(likely, left, size, random)
        made = [tiles.schedule(module, tile, compiled_for, machine.cores) for tile in pool]
        yield [schedule for schedule in made if schedule is not None]


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


def _best(tried: Sequence[Tried]) -> list[Tile]:
    fastest = sorted(tried, key=lambda record: (record.latency_s, record.trace))
    return _tiles([record.trace for record in fastest])


def _tiles(traces: Sequence[bytes]) -> list[Tile]:
    found = (tiles.tile_of(ir.unpack_trace(trace)) for trace in traces)
    return [tile for tile in found if tile is not None]
