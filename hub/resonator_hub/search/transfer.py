"""A schedule found for one workload is carried over to another of the same structure and other extents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from resonator_hub import ir

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.s_tir import Schedule
    from tvm.target import Target

_SEED = 1
_TILE, _POSTPROCESSING = "SamplePerfectTile", "EnterPostproc"
_OUTERMOST = 0.1
"""What a change of the outermost factor counts against one further in, that fills registers and caches."""


def adapted(traces: Sequence[bytes], module: IRModule, target: Target) -> list[Schedule]:
    """Return schedules of `module` as near to the traces as its extents allow, ready to be built.

    Traces that do not fit it are left out.
    """
    from tvm.s_tir import meta_schedule as ms

    context = ms.TuneContext(mod=module, target=target, space_generator="post-order-apply")
    near = (adapt(trace, module, context.space_generator.postprocs) for trace in traces)
    return [schedule for schedule in near if schedule is not None]


def adapt(trace: bytes, module: IRModule, postprocessors: Sequence[Any] = ()) -> Schedule | None:
    """Return a schedule of `module` that is as near to the trace as its extents allow, or None.

    `trace` may have been found for another workload with the same blocks. What it chose among categories is
    kept; tilings become the nearest ones that divide the loops of `module`. Postprocessing is not carried
    over, since it depends on the extents: `postprocessors`, those of a `TuneContext`, are applied instead.
    None where an instruction cannot be applied or a postprocessor refuses. Takes 20 to 40 ms.
    """
    instructions, decisions = ir.unpack_trace(trace)
    instructions = _without_postprocessing(instructions)
    tiles = {at: _limit(one) for at, one in enumerate(instructions) if str(one[0]) == _TILE}
    wanted = {int(at): decision for at, decision in decisions if int(at) < len(instructions)}
    others = {at: decision for at, decision in wanted.items() if at not in tiles}
    try:
        # Tilings are drawn at random once: their products say how long the loops of this workload are.
        drawn = _applied(instructions, others, module)
        found = {int(at): _factors(one) for at, one in drawn.trace.as_json()[1] if int(at) in tiles}
        near = {
            at: nearest(_factors(wanted[at]), math.prod(found[at]), limit)
            for at, limit in tiles.items()
            if at in wanted and at in found
        }
        schedule = _applied(instructions, {**others, **near}, module)
        schedule.enter_postproc()
        kept = all(postprocessor.apply(schedule) for postprocessor in postprocessors)
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None  # TVM's schedule errors derive from these
    return schedule if kept else None


@lru_cache(maxsize=4096)  # the traces of one task share most of their tilings
def nearest(factors: tuple[int, ...], extent: int, innermost: int) -> tuple[int, ...]:
    """Return the factors of `extent` that differ least from `factors`, the last at most `innermost`.

    They differ by the sum of the logarithms of their ratios; the outermost one counts little.
    """

    def difference(tiling: tuple[int, ...]) -> float:
        changes = [abs(math.log(new / old)) for new, old in zip(tiling, factors, strict=True)]
        return sum(changes[1:]) + _OUTERMOST * changes[0]

    fitting = [tiling for tiling in _tilings(extent, len(factors)) if tiling[-1] <= max(1, innermost)]
    return min(fitting, key=lambda tiling: (difference(tiling), tiling))


def _tilings(extent: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (extent,)
        return
    for first in _divisors(extent):
        for rest in _tilings(extent // first, parts - 1):
            yield (first, *rest)


@lru_cache(maxsize=1024)
def _divisors(extent: int) -> tuple[int, ...]:
    return tuple(divisor for divisor in range(1, extent + 1) if extent % divisor == 0)


def _without_postprocessing(instructions: Sequence[Any]) -> list[Any]:
    names = [str(one[0]) for one in instructions]
    end = names.index(_POSTPROCESSING) if _POSTPROCESSING in names else len(names)
    return list(instructions[:end])


def _limit(instruction: Any) -> int:
    """Return how long the innermost loop of a tiling may be."""
    return int(instruction[2][1])


def _factors(decision: Any) -> tuple[int, ...]:
    return tuple(int(factor) for factor in decision)


def _applied(instructions: list[Any], decisions: dict[int, Any], module: IRModule) -> Schedule:
    """Apply instructions with these decisions, and others at random."""
    from tvm.s_tir import Schedule
    from tvm.s_tir.schedule import Trace

    schedule = Schedule(module, seed=_SEED)
    Trace.apply_json_to_schedule([instructions, [list(one) for one in decisions.items()]], schedule)
    return schedule
