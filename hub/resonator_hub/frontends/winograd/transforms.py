"""The two kernels around the products: tiles of an image to places, and back. They need no search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resonator_hub.frontends.winograd.scheme import Scheme
from resonator_hub.processor import WORTH_THREADS, Processor

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc


def input_transform(shape: Sequence[int], scheme: Scheme, processor: Processor) -> PrimFunc:
    """Return the function that turns an image (n, h, w, c) into (places, tiles, c), scheduled."""
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    n, height, width, channels = shape
    rows, columns = scheme.tiles(height), scheme.tiles(width)
    side, m, tiles, to = scheme.inputs, scheme.outputs, n * rows * columns, scheme.to_input
    image = te.placeholder(tuple(shape), name="image")
    padded_shape = (n, rows * m + 2, columns * m + 2, channels)
    padded = te.compute(
        padded_shape,
        lambda i, y, x, c: tirx.if_then_else(
            tirx.all(y >= 1, y <= height, x >= 1, x <= width), image[i, y - 1, x - 1, c], 0.0
        ),
        name="padded",
    )

    def half(y: Any, x: Any, tile: Any, c: Any) -> Any:
        row, column = tile // columns % rows, tile % columns
        return _choice(
            y, to, lambda step: padded[tile // (rows * columns), row * m + step, column * m + x, c]
        )

    halves = te.compute((side, side, tiles, channels), half, name="halves")
    places = te.compute(
        (side * side, tiles, channels),
        lambda p, tile, c: _choice(p % side, to, lambda step: halves[p // side, step, tile, c]),
        name="places",
    )
    made = Schedule(te.create_prim_func([image, places]))
    block, pad = made.get_sblock("places", "main"), made.get_sblock("padded", "main")
    p, tile, c = made.get_loops(block)
    row, column = made.split(tile, [None, columns])
    (y, x), (vectors, lanes) = made.split(p, [None, side]), made.split(c, [None, _lanes(channels, processor)])
    made.reorder(row, column, vectors, y, x, lanes)
    _write_out(made, made.get_sblock("halves", "main"), vectors, (y, x), lanes)
    made.compute_at(pad, row)
    made.vectorize(made.split(made.get_loops(pad)[-1], [None, _lanes(channels, processor)])[1])
    return _scheduled(made, row, processor, tiles * channels)


def output_transform(shape: Sequence[int], scheme: Scheme, processor: Processor, *, relu: bool) -> PrimFunc:
    """Return the function that turns (places, tiles, c) and a bias into the image `shape`, scheduled."""
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    n, height, width, channels = shape
    rows, columns = scheme.tiles(height), scheme.tiles(width)
    side, m, tiles, back = scheme.inputs, scheme.outputs, n * rows * columns, scheme.to_output
    places = te.placeholder((side * side, tiles, channels), name="places")
    bias = te.placeholder((1, 1, 1, channels), name="bias")

    halves = te.compute(
        (m, side, tiles, channels),
        lambda y, x, tile, c: _choice(y, back, lambda step: places[step * side + x, tile, c]),
        name="halves",
    )

    def pixel(i: Any, y: Any, x: Any, c: Any) -> Any:
        tile = (i * rows + y // m) * columns + x // m
        value = _choice(x % m, back, lambda step: halves[y % m, step, tile, c]) + bias[0, 0, 0, c]
        return tirx.max(value, 0.0) if relu else value

    image = te.compute(tuple(shape), pixel, name="image")
    made = Schedule(te.create_prim_func([places, bias, image]))
    i, y, x, c = made.get_loops(made.get_sblock("image", "main"))
    (row, dy), (column, dx) = made.split(y, [None, m]), made.split(x, [None, m])
    vectors, lanes = made.split(c, [None, _lanes(channels, processor)])
    made.reorder(i, row, column, vectors, dy, dx, lanes)
    _write_out(made, made.get_sblock("halves", "main"), vectors, (dy, dx), lanes)
    return _scheduled(made, made.fuse(i, row), processor, n * height * width * channels)


def _choice(number: Any, matrix: Sequence[Sequence[float]], element: Any) -> Any:
    """Return the product of the `number`-th row of a matrix with elements, a column of them.

    The loop over numbers is written out, so that nothing is chosen at run time.
    """
    from tvm import tirx

    rows = [[(element(step), factor) for step, factor in enumerate(row) if factor] for row in matrix]
    chosen = _sum(rows[-1])
    for index in reversed(range(len(rows) - 1)):
        chosen = tirx.Select(number == index, _sum(rows[index]), chosen)
    return chosen


def _sum(terms: Sequence[tuple[Any, float]]) -> Any:
    total = None
    for value, factor in terms:
        term = value if factor == 1 else value * float(factor)
        total = term if total is None else total + term
    return total


def _lanes(channels: int, processor: Processor) -> int:
    """Return the longest vector of float32 that divides the channels."""
    return math.gcd(channels, processor.bits // 32)


def _write_out(made: Any, halves: Any, at: Any, tile: Sequence[Any], lanes: Any) -> None:
    """Transform one tile, and `lanes` of its channels, in registers: first its columns, then its rows."""
    made.set_scope(halves, 0, "local")
    made.compute_at(halves, at, preserve_unit_loops=True)
    *steps, vector = made.get_loops(halves)[-4:]
    for loop in (*steps, *tile):
        made.unroll(loop)
    made.vectorize(vector)
    made.vectorize(lanes)


def _scheduled(made: Any, outer: Any, processor: Processor, elements: int) -> PrimFunc:
    if processor.cores > 1 and elements >= WORTH_THREADS:
        made.parallel(outer)
    opaque = 8  # TVM's OpPatternKind: nothing is fused with it
    function = made.mod["main"].without_attr("global_symbol")
    return function.with_attr("tirx.is_scheduled", True).with_attr("op_pattern", opaque)
