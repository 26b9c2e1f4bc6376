"""Models become tasks: slim, fused, each distinct operator once, with the same digest wherever it occurs."""

from __future__ import annotations

import hashlib

import pytest
from onnx import helper

import kernel_timing
from resonator_hub import ir, warm
from resonator_hub.frontends import ModelInvalid
from resonator_hub.frontends.onnx import extract
from small_models import model, perceptron, residual_net


@pytest.fixture(scope="module")
def target() -> str:
    warm.load()
    return kernel_timing.target()


def test_batch_norm_and_sum_leave_no_kernels_of_their_own(target: str) -> None:
    names = [task.name for task in extract(residual_net(), {}, target).tasks]
    # Both convolutions are products here, by minimal filtering; the sum is fused with what follows it.
    assert any("matmul" in name for name in names)
    assert any("add" in name and "relu" in name for name in names)
    assert not any(word in name for name in names for word in ("batch_norm", "stack", "sqrt"))
    assert len(names) <= 7


def test_tasks_come_with_weight_work_and_digest_heaviest_first(target: str) -> None:
    tasks = extract(residual_net(), {}, target).tasks
    for task in tasks:
        assert task.weight >= 1
        assert task.digest == hashlib.sha256(task.module).hexdigest()
    work = [task.weight * task.flops for task in tasks]
    assert work == sorted(work, reverse=True)
    assert work[0] > 10 * work[-1]


def test_inputs_and_outputs_keep_their_names_and_have_fixed_shapes(target: str) -> None:
    extraction = extract(residual_net(batch="batch"), {"image": [2, 3, 16, 16]}, target)
    assert [(spec.name, spec.shape) for spec in extraction.inputs] == [("image", (2, 3, 16, 16))]
    assert [(spec.name, spec.shape, spec.dtype) for spec in extraction.outputs] == [
        ("scores", (2, 5), "float32")
    ]


def test_a_model_with_its_weights_among_the_inputs_gives_the_same_tasks(target: str) -> None:
    modern, legacy = extract(residual_net(), {}, target), extract(residual_net(legacy=True), {}, target)
    assert legacy == modern


def test_equal_operators_of_different_models_are_one_workload(target: str) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    twice = [relu, helper.make_node("Softmax", ["y"], ["z"]), helper.make_node("Relu", ["z"], ["out"])]
    alone = extract(model([relu], {"x": [4, 4]}, ["y"]), {}, target).tasks
    among = extract(model(twice, {"x": [4, 4]}, ["out"]), {}, target).tasks
    assert alone[0].digest in {task.digest for task in among}


def test_a_workload_packs_to_the_same_bytes_again(target: str) -> None:
    task = extract(perceptron(), {}, target).tasks[0]
    assert ir.pack_module(ir.unpack_module(task.module)) == task.module


def test_an_input_that_nothing_reads_stays_an_input(target: str) -> None:
    data = model([helper.make_node("Relu", ["x"], ["y"])], {"unused": [2], "x": [2, 2]}, ["y"])
    assert [spec.name for spec in extract(data, {}, target).inputs] == ["unused", "x"]


@pytest.mark.parametrize("operator", ["Det", "StringSplit"])
def test_an_operator_that_is_not_supported_is_named(target: str, operator: str) -> None:
    data = model([helper.make_node(operator, ["x"], ["y"])], {"x": [2, 2]}, ["y"])
    with pytest.raises(ModelInvalid, match=f"not supported: {operator}"):
        extract(data, {}, target)


def test_a_graph_that_does_not_fit_together_is_refused(target: str) -> None:
    nodes = [helper.make_node("MatMul", ["x", "x"], ["y"])]
    with pytest.raises(ModelInvalid):
        extract(model(nodes, {"x": [2, 3]}, ["y"]), {}, target)


def test_a_model_that_computes_nothing_is_refused(target: str) -> None:
    echo = model([helper.make_node("Identity", ["x"], ["y"])], {"x": [1, 4]}, ["y"])
    with pytest.raises(ModelInvalid, match="computes nothing"):
        extract(echo, {}, target)
