"""Convolutions as ONNX models with seeded weights; two of them peer and Resonator are compared on."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPERATORS = {"conv3x3": (64, 64, 3), "conv1x1": (256, 64, 1)}
"""Channels in and out, and the kernel's size; all on 56 x 56 pixels, with bias and relu."""


def model(name: str) -> bytes:
    """Return one operator as an ONNX file."""
    return convolution(*OPERATORS[name], pixels=56)


def convolution(inputs: int, outputs: int, size: int, pixels: int, groups: int = 1) -> bytes:
    """Return a convolution of `size` x `size` on `pixels` x `pixels` with bias and relu as an ONNX file."""
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.05, (outputs, inputs // groups, size, size)).astype("float32")
    bias = random.normal(0, 0.05, outputs).astype("float32")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[size // 2] * 4, group=groups),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        f"conv{size}x{size}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs, pixels, pixels])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs, pixels, pixels])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
