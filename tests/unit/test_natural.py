"""Operators without a reduction have a handful of schedules, all of them right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

from resonator_hub import warm
from resonator_hub.search.natural import natural

ONE_CORE = '{"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1}'
TWO_CORES = '{"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 2}'
PORTABLE = '{"kind": "llvm", "num-cores": 1}'  # runs on whatever machine tests this


def _function(compute: Callable[[Any, list[Any]], tuple[list[Any], Any]]) -> Any:
    import tvm
    from tvm import te, topi

    warm.load()
    arguments, result = compute(topi, [te])
    return tvm.IRModule({"main": te.create_prim_func([*arguments, result])})


def _shuffle(topi: Any, modules: list[Any]) -> tuple[list[Any], Any]:
    image = modules[0].placeholder((1, 6, 6, 24), name="image")
    parts = topi.transpose(topi.reshape(image, (1, 6, 6, 4, 6)), (0, 1, 2, 4, 3))
    return [image], topi.reshape(parts, (1, 6, 6, 24))


def _transpose(topi: Any, modules: list[Any]) -> tuple[list[Any], Any]:
    matrix = modules[0].placeholder((32, 48), name="matrix")
    return [matrix], topi.transpose(matrix)


def _concatenate(topi: Any, modules: list[Any]) -> tuple[list[Any], Any]:
    left = modules[0].placeholder((4, 24), name="left")
    right = modules[0].placeholder((4, 112), name="right")
    return [left, right], topi.nn.relu(topi.concatenate((left, right), axis=1))


def _sum(topi: Any, modules: list[Any]) -> tuple[list[Any], Any]:
    matrix = modules[0].placeholder((32, 48), name="matrix")
    return [matrix], topi.sum(matrix, axis=1)


def _large(topi: Any, modules: list[Any]) -> tuple[list[Any], Any]:
    matrix = modules[0].placeholder((512, 512), name="matrix")
    return [matrix], topi.nn.relu(matrix)


def _run(module: Any, target: str) -> Any:
    import tvm

    from resonator_hub import ir
    from resonator_hub.build.kernel import _arguments

    library = tvm.compile(module, target=ir.parse_target(target))
    random = np.random.default_rng(0)
    arrays = [
        tvm.runtime.tensor(random.standard_normal(one.shape).astype(one.dtype)) for one in _arguments(module)
    ]
    getattr(library, "mod", library)["main"](*arrays)
    return arrays[-1].numpy()


@pytest.mark.parametrize("compute", [_shuffle, _transpose, _concatenate])
def test_every_form_computes_what_the_operator_does(compute: Any) -> None:
    module = _function(compute)
    expected = _run(module, PORTABLE)
    made = natural(module, PORTABLE)
    assert len(made) > 1
    for schedule in made:
        np.testing.assert_array_equal(_run(schedule.mod, PORTABLE), expected)


def _extents(schedule: Any) -> list[int]:
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    return [int(schedule.get(loop).extent) for loop in schedule.get_loops(block)]


def test_loops_are_cut_where_an_index_would_be_divided_or_compared() -> None:
    assert _extents(natural(_function(_shuffle), ONE_CORE)[0])[-2:] == [6, 4]
    assert _extents(natural(_function(_concatenate), ONE_CORE)[0]) == [4, 17, 8]


def test_a_reduction_is_left_to_others() -> None:
    assert natural(_function(_sum), ONE_CORE) == []


def test_threads_are_tried_where_the_work_is_worth_waking_them() -> None:
    def parallel(compute: Any, target: str) -> list[bool]:
        return ["T.parallel" in one.mod.script() for one in natural(_function(compute), target)]

    assert not any(parallel(_large, ONE_CORE))
    assert not any(parallel(_transpose, TWO_CORES))
    assert set(parallel(_large, TWO_CORES)) == {False, True}
