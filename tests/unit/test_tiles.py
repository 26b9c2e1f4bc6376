"""What the space of register tiles knows of an operator, and that its schedules compute it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

from resonator_hub import ir, warm
from resonator_hub.build.kernel import _arguments
from resonator_hub.processor import Processor
from resonator_hub.search import tiles
from resonator_hub.search.tiles.operator import Operator, understand
from resonator_hub.search.tiles.space import points

PORTABLE = '{"kind": "llvm", "num-cores": 1}'  # runs on whatever machine tests this
WIDE = Processor(bits=512, registers=32, cores=1)


def _convolution(channels: int, groups: int) -> Any:
    import tvm
    from tvm import te, topi

    warm.load()
    image = te.placeholder((1, 4, 4, channels), name="image")
    weight = te.placeholder((1, 1, channels // groups, channels), name="weight")
    result = topi.nn.group_conv2d_nhwc(image, weight, 1, 0, 1, groups)
    function = te.create_prim_func([image, weight, result]).with_attr("layout_free_buffers", [1])
    return tvm.IRModule({"main": function})


def _run(module: Any) -> Any:
    import tvm

    library = tvm.compile(module, target=ir.parse_target(PORTABLE))
    random = np.random.default_rng(0)
    arrays = [
        tvm.runtime.tensor(random.standard_normal(one.shape).astype(one.dtype)) for one in _arguments(module)
    ]
    getattr(library, "mod", library)["main"](*arrays)
    return arrays[-1].numpy()


def _operator(channels: int, groups: int) -> Operator:
    operator = understand(_convolution(channels, groups))
    assert operator is not None
    return operator


def test_the_channels_of_a_group_share_what_they_read() -> None:
    operator = _operator(channels=24, groups=4)
    assert operator.period == 6
    assert operator.reads == (frozenset({0, 1, 2}), frozenset({3}))


def test_no_tile_straddles_two_groups() -> None:
    space = points(_operator(channels=272, groups=4), WIDE)
    assert space
    assert all(68 % tile.extents[-1] == 0 for tile in space)


def test_odd_groups_are_one_vector_with_the_whole_reduction_written_out() -> None:
    space = points(_operator(channels=272, groups=4), WIDE)
    best = max(space, key=lambda tile: space[tile])
    assert best.lanes in (34, 68)
    assert best.unroll == 68


def test_sums_fit_the_registers() -> None:
    for channels in (136, 256, 544):
        for tile in points(_operator(channels, 4), WIDE):
            assert prod(tile.extents) // tile.lanes * -(-tile.lanes // 16) < WIDE.registers


@pytest.mark.parametrize(("channels", "groups"), [(24, 4), (80, 4), (128, 8)])
def test_a_tile_computes_what_the_operator_does(channels: int, groups: int) -> None:
    module = _convolution(channels, groups)
    space = points(_operator(channels, groups), WIDE)
    tile = max(space, key=lambda one: (space[one], str(one)))
    made = tiles.schedule(_without_weights(module), tile, PORTABLE)
    assert made is not None
    np.testing.assert_allclose(_run(made.mod), _run(module), rtol=1e-4, atol=1e-4)


def _without_weights(module: Any) -> Any:
    """Take away the freedom to store weights in another order, so that results can be compared."""
    import tvm

    return tvm.IRModule({"main": module["main"].with_attr("layout_free_buffers", [])})
