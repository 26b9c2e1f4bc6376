"""Graphs are rewritten so that they run faster, and compute the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from resonator.accuracy import relative_error
from resonator_hub import ir, warm
from resonator_hub.frontends import relax as graphs
from resonator_hub.frontends.onnx import prepare
from resonator_hub.frontends.winograd import F2, F4, Scheme, weights

TARGET = json.dumps({"kind": "llvm", "num-cores": 2})


@pytest.fixture(scope="module", autouse=True)
def tvm_is_warm() -> None:
    warm.load()


def convolutions(count: int, size: int, channels: int, outputs: int, *, relu: bool = True) -> bytes:
    """Return `count` 3x3 convolutions with bias, each perhaps with a ReLU, as an ONNX file."""
    random = np.random.default_rng(count)
    nodes, weights_, name, depth = [], [], "x", channels
    for number in range(count):
        kernel = random.normal(0, 1 / depth, (outputs, depth, 3, 3)).astype("float32")
        bias = random.normal(0, 1, outputs).astype("float32")
        weights_ += [
            numpy_helper.from_array(kernel, f"w{number}"),
            numpy_helper.from_array(bias, f"b{number}"),
        ]
        inputs = [name, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], pads=[1] * 4))
        name, depth = f"c{number}", outputs
        if relu:
            nodes.append(helper.make_node("Relu", [name], [f"r{number}"]))
            name = f"r{number}"
    shapes = [1, channels, size, size], [1, outputs, size, size]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip(("x", name), shapes, strict=True)
    ]
    graph = helper.make_graph(nodes, "convolutions", values[:1], values[1:], weights_)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


@pytest.mark.parametrize("scheme", [F2, F4])
def test_minimal_filtering_is_a_convolution(scheme: Scheme) -> None:
    random = np.random.default_rng(0)
    tile = random.normal(size=(scheme.inputs, scheme.inputs))
    kernel = random.normal(size=(3, 3)).astype("float32")
    places = weights(kernel[..., None, None], scheme).reshape(scheme.inputs, scheme.inputs)
    to_input, to_output = np.array(scheme.to_input), np.array(scheme.to_output)
    product = (to_input @ tile @ to_input.T) * places
    windows = np.lib.stride_tricks.sliding_window_view(tile, (3, 3))
    plain = np.einsum("yxab,ab->yx", windows, kernel)
    assert np.allclose(to_output @ product @ to_output.T, plain, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "channels", "outputs", "relu"), [(13, 32, 64, True), (16, 64, 32, False), (30, 24, 48, True)]
)
def test_rewritten_convolutions_compute_the_same(size: int, channels: int, outputs: int, relu: bool) -> None:
    import onnxruntime
    import tvm
    from tvm.relax import VirtualMachine

    model = convolutions(3, size, channels, outputs, relu=relu)
    module = graphs.import_graph(prepare(model, {})[0], TARGET)
    names = [name.name_hint for name in module.get_global_vars()]
    assert sum(name.startswith("winograd_input") for name in names) >= 1
    x = np.random.default_rng(1).normal(size=(1, channels, size, size)).astype("float32")
    executable = tvm.compile(module, ir.parse_target(TARGET))
    answer = VirtualMachine(executable, tvm.cpu())["main"](tvm.runtime.tensor(x)).numpy()
    expected = onnxruntime.InferenceSession(model).run(None, {"x": x})[0]
    assert relative_error(answer, expected) < 1e-5


def test_what_is_scheduled_already_is_no_task() -> None:
    module = graphs.import_graph(prepare(convolutions(3, 16, 64, 64), {})[0], TARGET)
    assert not [task.name for task in graphs.tasks(module, TARGET) if "winograd" in task.name]


def test_a_single_convolution_stays_in_its_layout_and_several_do_not() -> None:
    def transposes(count: int) -> int:
        module = graphs.import_graph(prepare(convolutions(count, 16, 8, 8), {})[0], TARGET)
        return sum("transpose" in task.name for task in graphs.tasks(module, TARGET))

    assert transposes(1) == 0
    assert transposes(3) == 2
