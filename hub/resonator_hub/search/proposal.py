"""Select: the next candidates of a task, by evolutionary search over its records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resonator_hub import cost_model as learned
from resonator_hub import ir
from resonator_hub.search.guide import Guide, features_of

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.s_tir.meta_schedule import TuneContext
    from tvm.target import Target

# Measured (conv3x3 64->64 @56, 64 trials, one core): TVM's 512 and 4 search 88 s for 2081 us, these 14 s
# for 2114 us; a population of 32 and one generation take 5 s for 2778 us.
POPULATION = 64
GENERATIONS = 2
PARENTS = 16
"""How many of the best records the population starts from."""
ROUNDS = 3
"""How many times the search is asked again when what it proposes has been seen before."""


@dataclass(frozen=True)
class Tried:
    """A measured candidate: its trace and its latency in seconds."""

    trace: bytes
    latency_s: float


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
) -> tuple[Proposal, ...]:
    """Return up to `count` new candidates, best predicted first, none with a digest in `seen`.

    Fewer, or none, come back when the space is exhausted. Equal arguments give equal proposals.
    """
    module = ir.unpack_module(workload)
    context, guide = _search(module, ir.parse_target(target), tried, cost_model, count, seed)
    chosen: dict[str, Any] = {}
    for _ in range(ROUNDS):
        candidates = context.generate_measure_candidates()
        if not candidates:
            break
        for candidate in candidates:
            digest = _digest(workload, candidate.sch.mod)
            if digest not in seen:
                chosen.setdefault(digest, candidate)
        if len(chosen) >= count:
            break
    picked = list(chosen.items())[:count]
    features = features_of(context, [candidate for _, candidate in picked])
    scores = learned.predict(cost_model, features) if cost_model else [None] * len(picked)
    proposals = [
        Proposal(trace=ir.pack_trace(candidate.sch), digest=digest, features=row, predicted=score)
        for (digest, candidate), row, score in zip(picked, features, scores, strict=True)
    ]
    guide.raise_error()
    return tuple(sorted(proposals, key=lambda proposal: -(proposal.predicted or 0.0)))


def _search(
    module: IRModule,
    target: Target,
    tried: Sequence[Tried],
    cost_model: bytes | None,
    count: int,
    seed: int,
) -> tuple[TuneContext, Guide]:
    """Return a context that has learned everything in `tried` and is ready to be asked."""
    from tvm.s_tir import meta_schedule as ms

    context = ms.TuneContext(
        mod=module,
        target=target,
        space_generator="post-order-apply",
        search_strategy=ms.search_strategy.EvolutionarySearch(
            population_size=POPULATION,
            genetic_num_iters=GENERATIONS,
            init_measured_ratio=PARENTS / POPULATION,
            init_min_unmeasured=POPULATION - PARENTS,
        ),
        num_threads=1,
        rand_state=seed % (2**31 - 2) + 1,
    )
    guide = Guide(cost_model, seed)
    asked = count + max(2, count // 4)  # a second round costs as much as the first, a few more here nothing
    context.pre_tuning(
        max_trials=ROUNDS * asked,
        num_trials_per_iter=asked,
        design_spaces=context.generate_design_space(),
        database=_database(module, target, tried),
        cost_model=guide.as_tvm(),
    )
    return context, guide


def _database(module: IRModule, target: Target, tried: Sequence[Tried]) -> Any:
    from tvm.s_tir import meta_schedule as ms

    database = ms.database.MemoryDatabase()
    entry = database.commit_workload(module)
    for record in sorted(tried, key=lambda record: (record.latency_s, record.trace))[:PARENTS]:
        trace = ir.apply_trace(record.trace, module).trace
        database.commit_tuning_record(
            ms.database.TuningRecord(trace, entry, [record.latency_s], target, None)
        )
    return database


def _digest(workload: bytes, scheduled: IRModule) -> str:
    identity = hashlib.sha256(workload).hexdigest() + ir.structural_hash(scheduled)
    return hashlib.sha256(identity.encode()).hexdigest()
