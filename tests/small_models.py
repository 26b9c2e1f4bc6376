"""ONNX models small enough to compile in a test, built by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def model(
    nodes: Sequence[Any],
    inputs: dict[str, Sequence[int | str]],
    outputs: Sequence[str],
    weights: dict[str, Any] | None = None,
    *,
    legacy: bool = False,
) -> bytes:
    """Return a model of float32 tensors; a `legacy` one lists its weights as inputs, as IR version 3 did."""
    initializers = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()
    ]
    if legacy:
        values += [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in initializers
        ]
    results = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(list(nodes), "small", values, results, initializers)
    opset = helper.make_opsetid("", 9 if legacy else 13)
    proto = helper.make_model(graph, opset_imports=[opset], ir_version=3 if legacy else 8)
    return bytes(proto.SerializeToString())


def residual_net(*, batch: int | str = 1, legacy: bool = False) -> bytes:
    """Two convolutions with BatchNorm, a residual Sum, pooling and a classifier; the input is `image`."""
    random = np.random.default_rng(7)
    weights: dict[str, Any] = {
        "w1": _normal(random, 8, 3, 3, 3),
        "w2": _normal(random, 8, 8, 3, 3),
        "dense": _normal(random, 8, 5),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        _batch_norm(random, weights, "c1", "n1"),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        _batch_norm(random, weights, "c2", "n2"),
        helper.make_node("Sum", ["n2", "r1"], ["s"]),
        helper.make_node("Relu", ["s"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["scores"]),
    ]
    return model(nodes, {"image": [batch, 3, 16, 16]}, ["scores"], weights, legacy=legacy)


def perceptron() -> bytes:
    """A product of matrices, 32x64 by 64x48, with a bias and a Relu; the input is `x`, the output `y`."""
    random = np.random.default_rng(3)
    weights = {"w": _normal(random, 64, 48), "b": _normal(random, 48)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    return model(nodes, {"x": [32, 64]}, ["y"], weights)


def _normal(random: np.random.Generator, *shape: int) -> Any:
    return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)


def _batch_norm(random: np.random.Generator, weights: dict[str, Any], source: str, result: str) -> Any:
    names = [f"{result}_{part}" for part in ("scale", "bias", "mean", "variance")]
    for name in names:
        weights[name] = random.uniform(0.5, 1.5, 8).astype(np.float32)
    return helper.make_node("BatchNormalization", [source, *names], [result])
