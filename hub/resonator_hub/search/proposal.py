"""Select: the next candidates of a task, from a space of our own where it has one, else by evolution."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from random import Random
from typing import TYPE_CHECKING

from resonator_hub import cost_model as learned
from resonator_hub import ir
from resonator_hub.search import transfer
from resonator_hub.search.evolution import evolve
from resonator_hub.search.guide import Guide, features_of
from resonator_hub.search.natural import natural
from resonator_hub.search.tiling import explore
from resonator_hub.search.tried import Tried

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.s_tir import Schedule

POOR = 0.25
"""A candidate predicted to reach less of the best known speed than this is not worth building."""
SPARE = 1.25
"""How many more than wanted evolution is asked for: another round costs as much as the first."""
WIDTH = 3
"""How many tiles are judged for each that is wanted: judging one costs a tenth of building it."""
POOLS = 4
"""How many pools of tiles are looked through for candidates that are neither seen nor poor."""
DARING = 0.2
"""The share of candidates chosen whatever the cost model says of them, so that it learns where it errs."""


@dataclass(frozen=True)
class Proposal:
    """A candidate to build and measure."""

    trace: bytes
    digest: str
    """Names the scheduled program: two traces with the same outcome have the same digest."""
    features: bytes
    predicted: float | None
    """The cost model's score, higher is faster; None before there is a model."""


def select(
    workload: bytes,
    target: str,
    tried: Sequence[Tried],
    cost_model: bytes | None,
    count: int,
    seed: int,
    seen: frozenset[str],
    hints: Sequence[bytes] = (),
) -> tuple[Proposal, ...]:
    """Return up to `count` new candidates, best predicted first, none with a digest in `seen`.

    `hints` are traces that were good for similar operators. Candidates that the cost model expects to be
    poor are replaced by others, before any of them is built. Fewer, or none, come back when the space is
    exhausted. Equal arguments give equal proposals.
    """
    module = ir.unpack_module(workload)
    guide, random = Guide(cost_model, seed), Random(seed)
    chosen: dict[str, Proposal] = {}
    poor: list[Proposal] = []
    for pool in _pools(module, target, tried, guide, count, seed, hints):
        judged = _judged(module, target, _fresh(workload, pool, seen.union(chosen)), cost_model)
        taken = _chosen(judged, count - len(chosen), random)
        chosen.update((one.digest, one) for one in taken)
        poor += [one for one in judged if one.predicted is not None and one.predicted < POOR]
        if len(chosen) >= count:
            break
    best_first = sorted(chosen.values() or poor, key=lambda one: -(one.predicted or 0.0))
    # Where all that is left is expected to be poor, a few show whether the cost model is right.
    return tuple(best_first[: len(chosen) or math.ceil(count * DARING)])


def _pools(
    module: IRModule,
    target: str,
    tried: Sequence[Tried],
    guide: Guide,
    count: int,
    seed: int,
    hints: Sequence[bytes],
) -> Iterator[list[Schedule]]:
    """Yield schedules to choose from: the few of a plain operator, or tiles, or what evolution finds."""
    if plain := natural(module, target):
        yield plain
        return
    size = WIDTH * count if guide.knows else count
    tiled = explore(module, target, tried, hints, size, seed)
    first = next(tiled, None)
    if first is not None:
        yield from islice(chain([first], tiled), POOLS)
        return
    compiled_for = ir.parse_target(target)
    if adapted := transfer.adapted(hints, module, compiled_for):
        yield adapted
    yield from evolve(module, compiled_for, tried, guide, math.ceil(SPARE * count), seed)


def _fresh(workload: bytes, pool: Sequence[Schedule], seen: Container[str]) -> dict[str, Schedule]:
    """Return the schedules of a pool by their digests, but for those seen before."""
    found = {_digest(workload, schedule.mod): schedule for schedule in pool}
    return {digest: schedule for digest, schedule in found.items() if digest not in seen}


def _judged(
    module: IRModule, target: str, fresh: Mapping[str, Schedule], cost_model: bytes | None
) -> list[Proposal]:
    """Return the schedules as proposals, with what the cost model expects of each."""
    features = features_of(module, ir.parse_target(target), list(fresh.values()))
    scores = learned.predict(cost_model, features) if cost_model else [None] * len(fresh)
    return [
        Proposal(trace=ir.pack_trace(schedule), digest=digest, features=row, predicted=score)
        for (digest, schedule), row, score in zip(fresh.items(), features, scores, strict=True)
    ]


def _chosen(judged: Sequence[Proposal], wanted: int, random: Random) -> list[Proposal]:
    """Return the proposals to build: most by score, some at random, none that is expected to be poor."""
    good = [one for one in judged if one.predicted is None or one.predicted >= POOR]
    ranked = sorted(good, key=lambda one: -(one.predicted or 0.0))
    certain = ranked[: math.ceil(wanted * (1.0 - DARING))]
    rest = ranked[len(certain) :]
    return certain + random.sample(rest, min(len(rest), wanted - len(certain)))


def _digest(workload: bytes, scheduled: IRModule) -> str:
    identity = hashlib.sha256(workload).hexdigest() + ir.structural_hash(scheduled)
    return hashlib.sha256(identity.encode()).hexdigest()
