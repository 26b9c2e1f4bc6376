"""Operators without a reduction: one block with the loops of its output, in the few forms that matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd, prod
from typing import TYPE_CHECKING, Any

from resonator_hub.processor import WORTH_THREADS, Processor, processor_of

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.s_tir import Schedule

_SHORT = 32
"""A loop of at most this many steps may be written out."""
_SQUARES = (8, 16)


@dataclass(frozen=True)
class _Form:
    """What is done to the loops, outermost first: the last in vectors, or in squares with another, or not.

    `square` is the size and the other loop of a transpose in blocks that stay in the first cache; `written`
    are the loops that are written out; `swapped` runs along the other loop innermost.
    """

    lanes: int = 1
    written: tuple[int, ...] = ()
    square: tuple[int, int] | None = None
    swapped: bool = False
    threads: bool = False


def natural(module: IRModule, target: str) -> list[Schedule]:
    """Return all schedules worth measuring of an operator without a reduction; none of others, or for GPUs.

    Everything is computed in one pass over the output. Its loops are cut where the index of what is read
    would need a division or a comparison, so that neither is left inside.
    """
    from tvm.s_tir.schedule import ScheduleError

    processor = processor_of(target)
    try:
        base = _in_one_pass(module) if processor else None
    except ScheduleError:  # more than one output
        return []
    if processor is None or base is None:
        return []
    extents = [int(base.get(loop).extent) for loop in _loops(base)]
    return [_scheduled(base.copy(), form) for form in _forms(extents, processor)]


def _in_one_pass(module: IRModule) -> Schedule | None:
    """Return the operator as one block with its loops cut; None where anything is reduced."""
    from tvm.s_tir import Schedule

    made = Schedule(module)
    blocks = made.get_child_blocks(made.get_sblock("root"))
    if any(int(axis.iter_type) != 0 for block in blocks for axis in made.get(block).iter_vars):
        return None
    for block in blocks[:-1]:
        made.compute_inline(block)
    block = made.get(blocks[-1])
    for loop, axis in zip(made.get_loops(blocks[-1]), block.iter_vars, strict=True):
        if len(factors := _cut(int(axis.dom.extent), _cuts(block.body, axis.var))) > 1:
            made.split(loop, factors)
    return made


def _loops(made: Schedule) -> list[Any]:
    """Return the loops that run more than once; at least one."""
    (block,) = made.get_child_blocks(made.get_sblock("root"))
    loops = made.get_loops(block)
    return [loop for loop in loops if int(made.get(loop).extent) > 1] or loops[-1:]


def _cuts(body: Any, axis: Any) -> set[int]:
    """Return the steps of an axis at which a division of it goes on, or a comparison changes."""
    from tvm import tirx
    from tvm.sym import detect_linear_equation
    from tvm_ffi import structural_walk

    found: set[int] = set()

    def visit(node: Any) -> None:
        for moving, fixed in ((node.a, node.b), (node.b, node.a)):
            if isinstance(fixed, tirx.IntImm) and (slope := detect_linear_equation(moving, [axis])):
                pace, constant = int(slope[0]), int(fixed)
                found.update({constant // gcd(pace, constant)} if pace else ())

    kinds = (tirx.FloorDiv, tirx.FloorMod, tirx.LT, tirx.LE, tirx.GT, tirx.GE)
    structural_walk(body, (kinds, visit))
    return found


def _cut(extent: int, cuts: set[int]) -> list[int]:
    """Return the factors of an extent that put each cut between two steps of a loop."""
    factors, left = [], extent
    for cut in sorted({gcd(cut, extent) for cut in cuts}, reverse=True):
        if 1 < cut < left and left % cut == 0:
            factors.append(left // cut)
            left = cut
    return [*factors, left]


def _forms(extents: list[int], processor: Processor) -> Iterator[_Form]:
    for threads in (False, True) if processor.cores > 1 and prod(extents) >= WORTH_THREADS else (False,):
        last = len(extents) - 1
        short = [place for place in (last - 1, last) if place > 0 and extents[place] <= _SHORT]
        yield _Form(threads=threads)
        for place in short:
            yield _Form(written=(place,), threads=threads)
        for lanes in (processor.bits // 32, processor.bits // 64):
            if extents[last] % lanes == 0:
                yield _Form(lanes, threads=threads)
                if last - 1 in short:
                    yield _Form(lanes, (last - 1,), threads=threads)
        for size in _SQUARES:
            for other in range(last):
                if extents[other] % size == 0 and extents[last] % size == 0:
                    yield _Form(square=(size, other), threads=threads)
                    yield _Form(square=(size, other), swapped=True, threads=threads)


def _scheduled(made: Schedule, form: _Form) -> Schedule:
    loops = _loops(made)
    if form.square:
        size, other = form.square
        far, near = made.split(loops[other], [None, size])
        start, step = made.split(loops[-1], [None, size])
        outer = [*loops[:other], far, *loops[other + 1 : -1], start]
        inner = [step, near] if form.swapped else [near, step]
        made.reorder(*outer, *inner)
        made.unroll(inner[0])
        loops = [*outer, *inner]
    for place in form.written:
        made.unroll(loops[place])
    if form.lanes > 1:
        loops[-1:] = made.split(loops[-1], [None, form.lanes])
        made.vectorize(loops[-1])
    if form.threads:
        made.parallel(made.fuse(*loops[: max(1, len(loops) - 3)]))
    return made
