"""What an operator computes, as far as cutting it into tiles needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from math import gcd
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvm.ir import IRModule

_REDUCTION = 2  # TVM's IterVar.CommReduce


def reduces(axis: Any) -> bool:
    """Return whether a block adds up along this axis (TVM's `IterVar`)."""
    return int(axis.iter_type) == _REDUCTION


@dataclass(frozen=True)
class Operator:
    """One reduction, perhaps with padding before it and element-wise steps after it.

    `axes` and `reductions` are extents; `reads` has, for each buffer that the reduction reads, the axes of
    the output it depends on; `padded` says that the first of these is computed by a block of its own.
    `bits` is the size of an element. `period` is the extent of the last axis, or of one group of it where a
    buffer is read at one place by all of a group: the channels of a grouped convolution.
    """

    axes: tuple[int, ...]
    reductions: tuple[int, ...]
    reads: tuple[frozenset[int], ...]
    padded: bool
    bits: int
    period: int


def understand(module: IRModule) -> Operator | None:
    """Return the operator of a workload, or None where it is not one reduction with contiguous vectors."""
    from tvm.s_tir import Schedule

    schedule = Schedule(module)
    blocks = [schedule.get(block) for block in schedule.get_child_blocks(schedule.get_sblock("root"))]
    sums = [number for number, block in enumerate(blocks) if any(map(reduces, block.iter_vars))]
    if len(sums) != 1:
        return None
    before, main, after = blocks[: sums[0]], blocks[sums[0]], blocks[sums[0] + 1 :]
    axes = tuple(_extent(axis) for axis in main.iter_vars if not reduces(axis))
    if len(before) > 1 or len(main.writes) != 1 or not axes:
        return None
    if any(tuple(map(_extent, block.iter_vars)) != axes for block in after):
        return None
    grouped = [not _contiguous(region, main, _free(module)) for region in main.reads]
    groups = [_group(region, main) for region in compress(main.reads, grouped)]
    if 1 in groups:
        return None
    last = frozenset({len(axes) - 1})
    return Operator(
        axes=axes,
        reductions=tuple(_extent(axis) for axis in main.iter_vars if reduces(axis)),
        reads=tuple(
            _depends_on(region.region, main) - (last if shared else frozenset())
            for region, shared in zip(main.reads, grouped, strict=True)
        ),
        padded=bool(before),
        bits=_bits(str(main.writes[0].source.dtype)),
        period=gcd(axes[-1], *groups),
    )


def _extent(axis: Any) -> int:
    return int(axis.dom.extent)


def _bits(dtype: str) -> int:
    return int("".join(letter for letter in dtype if letter.isdigit()) or 8)


def _free(module: IRModule) -> frozenset[str]:
    """Return the names of the parameters that are weights, whose layout is ours to choose."""
    function = module["main"]
    attributes = function.attrs or {}
    numbers = [int(number) for number in attributes.get("layout_free_buffers", [])]
    return frozenset(str(function.params[number].name) for number in numbers)


def _depends_on(ranges: Sequence[Any], block: Any) -> frozenset[int]:
    """Return the axes of the output that the start of a region depends on."""
    from tvm.tirx.analysis import undefined_vars

    axes = [axis.var for axis in block.iter_vars if not reduces(axis)]
    used = [variable for one in ranges for variable in undefined_vars(one.min)]
    return frozenset(
        number for number, axis in enumerate(axes) if any(axis.same_as(variable) for variable in used)
    )


def _contiguous(region: Any, block: Any, free: frozenset[str]) -> bool:
    """Return whether a vector along the last axis is one load, or one value for all."""
    last = sum(not reduces(axis) for axis in block.iter_vars) - 1
    if last not in _depends_on(region.region, block) or str(region.source.name) in free:
        return True
    return last not in _depends_on(region.region[:-1], block) and _stride(region.region[-1].min, block) == 1


def _stride(index: Any, block: Any) -> int | None:
    """Return how far an index moves with the last axis of the output, or None where it is not linear."""
    from tvm.sym import detect_linear_equation

    last = [axis.var for axis in block.iter_vars if not reduces(axis)][-1]
    found = detect_linear_equation(index, [last])
    return int(found[0]) if found else None


def _group(region: Any, block: Any) -> int:
    """Return for how many neighbours along the last axis a region stays in place; 1 where it always moves."""
    from tvm import tirx
    from tvm_ffi import structural_walk

    last = [axis.var for axis in block.iter_vars if not reduces(axis)][-1]
    uses: list[Any] = []
    groups: list[int] = []

    def visit(node: Any) -> None:
        if last.same_as(node):
            uses.append(node)
        elif isinstance(node, tirx.FloorDiv) and last.same_as(node.a):
            groups.append(int(node.b))

    for one in region.region:
        structural_walk(one.min, ((tirx.Var, tirx.FloorDiv), visit))
    return gcd(*groups) if len(uses) == len(groups) else 1
