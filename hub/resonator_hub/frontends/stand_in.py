"""Random weights for graphs that come without any, such as the `light_*` models of the onnx package.

Their weights are one constant throughout, so that every class comes out equally likely and a wrong
kernel could not be told from a right one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from resonator_hub.frontends.onnx import parse


def with_random_weights(model: bytes, seed: int) -> bytes:
    """Return `model` with each constant that a ConstantOfShape made replaced by random weights.

    Weights keep the size of the activations about the same from layer to layer; vectors (biases,
    BatchNorm) are in [0.5, 1). Raises `ModelInvalid` for bytes that are no model.
    """
    proto = parse(model)
    random = np.random.default_rng(seed)
    known = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in known:
            shape = numpy_helper.to_array(known[node.input[0]])
            weights = _weights(tuple(int(extent) for extent in shape), random)
            proto.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        else:
            nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    _drop_weights_from_inputs(proto)
    return bytes(proto.SerializeToString())


def _weights(shape: tuple[int, ...], random: np.random.Generator) -> Any:
    if len(shape) < 2:
        return random.uniform(0.5, 1.0, shape).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (random.standard_normal(shape) * 0.5 / np.sqrt(fan_in)).astype(np.float32)


def _drop_weights_from_inputs(proto: onnx.ModelProto) -> None:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, 4)
