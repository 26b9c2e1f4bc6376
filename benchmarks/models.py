"""The whole models that Resonator and ONNX Runtime are compared on, as ONNX files with seeded weights."""

from __future__ import annotations

import importlib.resources
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from resonator_hub.frontends.stand_in import with_random_weights

LIGHT = ("light_resnet50", "light_squeezenet", "light_shufflenet")
"""Graphs that come with the `onnx` package, on 224 x 224 images."""
BERT = "bert_small"
MODELS = (*LIGHT, BERT)
SEED = 0

LAYERS, HIDDEN, HEADS, FORWARD, SEQUENCE = 4, 512, 8, 2048, 128
VOCABULARY = 8192
"""BERT has 30522 words; the time to look one up does not depend on their number."""


def model(name: str) -> bytes:
    """Return one of `MODELS` as an ONNX file."""
    if name == BERT:
        return Transformer().model()
    light = Path(str(importlib.resources.files("onnx"))) / "backend/test/data/light" / f"{name}.onnx"
    return with_random_weights(light.read_bytes(), SEED)


def operations(source: bytes) -> float:
    """Return the floating-point operations of a model's convolutions and matrix products.

    They are counted as the graph states them: a compiler may do with fewer (Winograd).
    """
    graph = shape_inference.infer_shapes(onnx.load_from_string(source), strict_mode=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return sum(2.0 * _multiply_adds(node, shapes) for node in graph.node)


def _multiply_adds(node: Any, shapes: dict[str, list[int]]) -> int:
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0


class Transformer:
    """An encoder of BERT-small's sizes: tokens, int64 [1, 128], become states, float32 [1, 128, 512]."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(SEED)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def model(self) -> bytes:
        """Return the encoder as an ONNX file."""
        x = self._node("Gather", [self._weight((VOCABULARY, HIDDEN), 1.0), "tokens"])
        x = self._normed(self._node("Add", [x, self._weight((1, SEQUENCE, HIDDEN), 1.0)]))
        for _ in range(LAYERS):
            x = self._normed(self._node("Add", [x, self._attention(x)]))
            x = self._normed(self._node("Add", [x, self._feed_forward(x)]))
        self._nodes.append(helper.make_node("Identity", [x], ["states"]))
        graph = helper.make_graph(
            self._nodes,
            BERT,
            [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, SEQUENCE])],
            [helper.make_tensor_value_info("states", TensorProto.FLOAT, [1, SEQUENCE, HIDDEN])],
            self._weights,
        )
        opset = [helper.make_opsetid("", 17)]
        return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())

    def _attention(self, x: str) -> str:
        wide = HIDDEN // HEADS
        query = self._heads(self._linear(x, HIDDEN, HIDDEN), [0, 2, 1, 3])
        key = self._heads(self._linear(x, HIDDEN, HIDDEN), [0, 2, 3, 1])
        value = self._heads(self._linear(x, HIDDEN, HIDDEN), [0, 2, 1, 3])
        scores = self._node("MatMul", [query, key])
        scaled = self._node("Div", [scores, self._constant(np.float32(math.sqrt(wide)))])
        mixed = self._node("MatMul", [self._node("Softmax", [scaled], axis=-1), value])
        rows = self._node("Transpose", [mixed], perm=[0, 2, 1, 3])
        joined = self._node("Reshape", [rows, self._constant(np.array([1, SEQUENCE, HIDDEN]))])
        return self._linear(joined, HIDDEN, HIDDEN)

    def _heads(self, x: str, order: list[int]) -> str:
        split = self._constant(np.array([1, SEQUENCE, HEADS, HIDDEN // HEADS]))
        return self._node("Transpose", [self._node("Reshape", [x, split])], perm=order)

    def _feed_forward(self, x: str) -> str:
        return self._linear(self._gelu(self._linear(x, HIDDEN, FORWARD)), FORWARD, HIDDEN)

    def _gelu(self, x: str) -> str:
        """GELU as PyTorch exports it: x / 2 * (1 + erf(x / sqrt 2))."""
        bent = self._node("Erf", [self._node("Div", [x, self._constant(np.float32(math.sqrt(2)))])])
        gate = self._node("Add", [bent, self._constant(np.float32(1))])
        return self._node("Mul", [self._node("Mul", [x, gate]), self._constant(np.float32(0.5))])

    def _linear(self, x: str, inputs: int, outputs: int) -> str:
        product = self._node("MatMul", [x, self._weight((inputs, outputs), inputs**-0.5)])
        return self._node("Add", [product, self._weight((outputs,), 0.1)])

    def _normed(self, x: str) -> str:
        scale = self._constant(self._random.uniform(0.5, 1.5, HIDDEN).astype(np.float32))
        return self._node("LayerNormalization", [x, scale, self._weight((HIDDEN,), 0.1)], axis=-1)

    def _weight(self, shape: tuple[int, ...], spread: float) -> str:
        return self._constant((self._random.standard_normal(shape) * spread).astype(np.float32))

    def _constant(self, value: Any) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name
