"""A tile becomes a schedule of its operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resonator_hub import ir
from resonator_hub.processor import processor_of
from resonator_hub.search.tiles.operator import reduces
from resonator_hub.search.tiles.tile import ANNOTATION, Tile

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.s_tir import Schedule


def schedule(module: IRModule, tile: Tile, target: str) -> Schedule | None:
    """Return the operator scheduled by `tile`, weights in the order they are read; None if TVM cannot.

    Each block of the output is summed in registers: for each step of the reduction a vector of one
    operand is multiplied with broadcast values of the other (Goto and van de Geijn, "Anatomy of
    high-performance matrix multiplication", 2008). The steps after the reduction run on the block while
    it is still in the cache.
    """
    from tvm.s_tir import Schedule
    from tvm.s_tir.schedule import ScheduleError

    made, processor = Schedule(module), processor_of(target)
    try:
        _apply(made, tile, processor.cores if processor else 1)
        return made if _rewrite_layout(made, module, target) else None
    except ScheduleError:
        return None


def _apply(made: Schedule, tile: Tile, cores: int) -> None:
    before, main, out = _blocks(made)
    if before is not None and not tile.pack and _copies(made.get(before)):
        made.compute_inline(before)
        before = None
    made.annotate(made.get_sblock("root"), ANNOTATION, str(tile))
    pairs = [
        made.split(loop, [None, size]) for loop, size in zip(made.get_loops(out), tile.extents, strict=True)
    ]
    outer, inner = [pairs[axis][0] for axis in tile.order], [pair[1] for pair in pairs]
    made.reorder(*outer, *inner)
    first = _reduce(made, main, outer, tile)
    _vectorize(made, inner, tile.lanes)
    if before is None and tile.pack:
        before = made.cache_read(main, 0, "global")
    if before is not None:
        _pack(made, before, outer, tile, cores)
    if cores > 1:
        made.parallel(made.fuse(*(outer[: tile.pack] or outer)))
    made.decompose_reduction(main, first)


def _blocks(made: Schedule) -> tuple[Any, Any, Any]:
    """Return the block that pads (or None), the one that reduces, and the one that writes the output."""
    blocks = made.get_child_blocks(made.get_sblock("root"))
    number = next(
        number for number, block in enumerate(blocks) if any(map(reduces, made.get(block).iter_vars))
    )
    for block in blocks[number + 1 : -1]:
        made.compute_inline(block)
    main, before = blocks[number], blocks[0] if number else None
    if number == len(blocks) - 1:
        return before, main, made.cache_write(main, 0, "local")
    made.set_scope(main, 0, "local")
    return before, main, blocks[-1]


def _copies(block: Any) -> bool:
    """Return whether a block pads by nothing, as that of a 1 x 1 convolution does."""
    read = getattr(block.body.value, "indices", ())
    written = block.body.indices
    return len(read) == len(written) and all(a.same_as(b) for a, b in zip(read, written, strict=True))


def _reduce(made: Schedule, main: Any, outer: list[Any], tile: Tile) -> Any:
    """Bring the reduction into the outer loops, all of it around one block; return its first loop."""
    made.compute_at(main, outer[-1], preserve_unit_loops=True)
    loops = made.get_loops(main)[len(outer) :]
    block, steps = loops[: len(tile.extents)], loops[len(tile.extents) :]
    if tile.unroll > 1:
        steps[-1:] = made.split(steps[-1], [None, tile.unroll])
        made.unroll(steps[-1])
    vectors, lanes = made.split(block[-1], [None, tile.lanes])
    made.reorder(*steps, *block[:-1], vectors, lanes)
    made.vectorize(lanes)
    for loop in (*block[:-1], vectors):
        made.unroll(loop)
    return steps[0]


def _vectorize(made: Schedule, loops: list[Any], lanes: int) -> None:
    vectors, last = made.split(loops[-1], [None, lanes])
    made.vectorize(last)
    for loop in (*loops[:-1], vectors):
        made.unroll(loop)


def _pack(made: Schedule, before: Any, outer: list[Any], tile: Tile, cores: int) -> None:
    """Pad or pack what the reduction reads: within the outer loops, or at once and in parallel."""
    if tile.pack:
        made.compute_at(before, outer[tile.pack - 1])
    loops = made.get_loops(before)
    if int(made.get(loops[-1]).extent) > tile.lanes:
        loops[-1:] = made.split(loops[-1], [None, tile.lanes])
    made.vectorize(loops[-1])
    if cores > 1 and not tile.pack and len(loops) > 2:
        made.parallel(made.fuse(*loops[:-2]))


def _rewrite_layout(made: Schedule, module: IRModule, target: str) -> bool:
    """Have the weights stored in the order in which the reduction reads them."""
    from tvm.s_tir import meta_schedule as ms

    context = ms.TuneContext(
        mod=module,
        target=ir.parse_target(target),
        space_generator=ms.space_generator.ScheduleFn(
            lambda _: None, sch_rules=[], postprocs=[], mutator_probs={}
        ),
    )
    rewrite = ms.postproc.RewriteLayout()
    rewrite._initialize_with_tune_context(context)
    return bool(rewrite.apply(made))
