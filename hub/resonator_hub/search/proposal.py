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
from resonator_hub.search import tiling, transfer
from resonator_hub.search.evolution import evolve
from resonator_hub.search.guide import Guide, features_of
from resonator_hub.search.natural import natural
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
    """Return up to `count` new candidates, none with a digest in `seen`.

    First come those nearest to `hints`, traces that were good for similar operators, in their order; then
    others, best predicted first. Of these, candidates that the cost model expects to be poor are replaced
    before they are built. Fewer, or none, come back when the space is exhausted. Equal arguments give equal
    proposals.
    """
    module = ir.unpack_module(workload)
    guide, random = Guide(cost_model, seed), Random(seed)
    plain = natural(module, target)
    near = [] if plain or not hints else _near(module, target, hints)
    judged = _judged(module, target, _fresh(workload, near, seen), cost_model)
    handed_on = judged[: math.ceil(count * (1.0 - DARING))]
    chosen = {one.digest: one for one in handed_on}
    others: list[Proposal] = []
    poor: list[Proposal] = []
    for pool in [plain] if plain else _pools(module, target, tried, guide, count, seed):
        judged = _judged(module, target, _fresh(workload, pool, seen.union(chosen)), cost_model)
        taken = _chosen(judged, count - len(chosen), random)
        chosen.update((one.digest, one) for one in taken)
        others += taken
        poor += [one for one in judged if one.predicted is not None and one.predicted < POOR]
        if len(chosen) >= count:
            break
    if not chosen:  # all that is left is expected to be poor: a few show whether the cost model is right
        return _best_first(poor)[: math.ceil(count * DARING)]
    return (*handed_on, *_best_first(others))


def _best_first(proposals: Sequence[Proposal]) -> tuple[Proposal, ...]:
    return tuple(sorted(proposals, key=lambda one: -(one.predicted or 0.0)))


def _near(module: IRModule, target: str, hints: Sequence[bytes]) -> list[Schedule]:
    """Return the schedules of this operator that are most like those of similar ones, in their order."""
    return tiling.near(module, target, hints) or transfer.adapted(hints, module, ir.parse_target(target))


def _pools(
    module: IRModule, target: str, tried: Sequence[Tried], guide: Guide, count: int, seed: int
) -> Iterator[list[Schedule]]:
    """Yield schedules to choose from: tiles, or what evolution finds for operators without."""
    tiled = tiling.explore(module, target, tried, WIDTH * count if guide.knows else count, seed)
    first = next(tiled, None)
    if first is None:
        yield from evolve(module, ir.parse_target(target), tried, guide, math.ceil(SPARE * count), seed)
    else:
        yield from islice(chain([first], tiled), POOLS)


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
    ranked = _best_first(good)
    certain = ranked[: math.ceil(wanted * (1.0 - DARING))]
    rest = ranked[len(certain) :]
    return [*certain, *random.sample(rest, min(len(rest), wanted - len(certain)))]


def _digest(workload: bytes, scheduled: IRModule) -> str:
    identity = hashlib.sha256(workload).hexdigest() + ir.structural_hash(scheduled)
    return hashlib.sha256(identity.encode()).hexdigest()
