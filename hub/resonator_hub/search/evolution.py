"""MetaSchedule's design space, searched by evolution over a task's records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from resonator_hub import ir
from resonator_hub.search.guide import Guide
from resonator_hub.search.tried import Tried

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.s_tir import Schedule
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


def evolve(
    module: IRModule, target: Target, tried: Sequence[Tried], guide: Guide, count: int, seed: int
) -> Iterator[list[Schedule]]:
    """Yield generations of `count` schedules, those that the guide expects most of, at most `ROUNDS`."""
    context = _context(module, target, tried, guide, count, seed)
    for _ in range(ROUNDS):
        candidates = context.generate_measure_candidates()
        guide.raise_error()
        if not candidates:
            return
        yield [candidate.sch for candidate in candidates]


def _context(
    module: IRModule, target: Target, tried: Sequence[Tried], guide: Guide, count: int, seed: int
) -> TuneContext:
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
    context.pre_tuning(
        max_trials=ROUNDS * count,
        num_trials_per_iter=count,
        design_spaces=context.generate_design_space(),
        database=_database(module, target, tried),
        cost_model=guide.as_tvm(),
    )
    return context


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
