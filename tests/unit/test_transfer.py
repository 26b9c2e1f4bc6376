"""Schedules of one operator on another of its kind: what is kept, what is fitted, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import kernel_timing
from resonator_hub import ir, warm
from resonator_hub.build import Kernel, build
from resonator_hub.frontends import Workload
from resonator_hub.frontends.onnx import extract
from resonator_hub.search import transfer
from small_models import residual_net


@pytest.fixture(scope="module")
def target() -> str:
    warm.load()
    return kernel_timing.target()


def dense(rows: int, inputs: int, outputs: int, target: str) -> Workload:
    """Return a matrix product with relu."""
    weight = np.random.default_rng(0).normal(size=(inputs, outputs)).astype("float32")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outputs])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return extract(model.SerializeToString(), {}, target).tasks[0]


def drawn(workload: Workload, target: str, count: int) -> list[bytes]:
    """Return traces drawn from TVM's own space."""
    from tvm.s_tir import meta_schedule as ms

    module = ir.unpack_module(workload.module)
    context = ms.TuneContext(
        mod=module,
        target=ir.parse_target(target),
        space_generator="post-order-apply",
        search_strategy="replay-trace",
        num_threads=1,
        rand_state=1,
    )
    context.pre_tuning(count, count, context.generate_design_space(), None, None)
    return [ir.pack_trace(one.sch) for one in context.generate_measure_candidates()]


@pytest.mark.parametrize(
    ("factors", "extent", "innermost", "expected"),
    [
        ((7, 1, 1, 8), 56, 64, (7, 1, 1, 8)),
        ((1, 4, 8, 2), 128, 64, (2, 4, 8, 2)),  # the outermost loop takes what is more
        ((2, 14, 2, 1), 28, 64, (1, 14, 2, 1)),
        ((1, 1, 64), 128, 32, (4, 1, 32)),
        ((4, 16), 7, 64, (1, 7)),
        ((8, 8), 1, 64, (1, 1)),
    ],
)
def test_the_nearest_tiling_keeps_the_inner_loops(
    factors: tuple[int, ...], extent: int, innermost: int, expected: tuple[int, ...]
) -> None:
    assert math.prod(expected) == extent
    assert transfer.nearest(factors, extent, innermost) == expected


def test_workloads_are_alike_whatever_their_extents(target: str) -> None:
    one, other = dense(32, 64, 48, target), dense(16, 128, 80, target)
    assert one.structure == other.structure
    assert (one.extents, other.extents) == ((32, 48, 64, 32, 48), (16, 80, 128, 16, 80))
    assert extract(residual_net(), {}, target).tasks[0].structure != one.structure


def test_a_schedule_fits_its_own_workload_as_it_was(target: str) -> None:
    workload = dense(32, 64, 48, target)
    module = ir.unpack_module(workload.module)
    traces = drawn(workload, target, 4)
    again = transfer.adapted(traces, module, ir.parse_target(target))
    assert [ir.structural_hash(schedule.mod) for schedule in again] == [
        ir.structural_hash(ir.apply_trace(trace, module).mod) for trace in traces
    ]


def test_schedules_of_a_similar_workload_are_built_and_right(target: str) -> None:
    traces = drawn(dense(32, 64, 48, target), target, 4)
    other = dense(16, 128, 80, target)
    plain = build(other.module, b"", target)
    near = transfer.adapted(traces, ir.unpack_module(other.module), ir.parse_target(target))
    assert len(near) == len(traces)
    assert isinstance(plain, Kernel)
    for schedule in near:
        kernel = build(other.module, ir.pack_trace(schedule), target)
        assert isinstance(kernel, Kernel)
        assert [np.prod(one.shape) for one in kernel.arguments] == [
            np.prod(one.shape) for one in plain.arguments
        ]
        assert np.isfinite(kernel_timing.run(kernel)[-1]).all()


def test_schedules_of_another_operator_are_left_out(target: str) -> None:
    traces = drawn(extract(residual_net(), {}, target).tasks[0], target, 2)
    module = ir.unpack_module(dense(32, 64, 48, target).module)
    assert transfer.adapted(traces, module, ir.parse_target(target)) == []
    with pytest.raises(ValueError, match="not compressed JSON"):
        transfer.adapt(b"no trace", module)
