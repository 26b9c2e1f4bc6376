"""What a model may be like: whatever would take memory or time out of all proportion is refused unread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import onnx
from onnx import TensorProto

from resonator_hub.frontends.model import ModelInvalid

MAX_NODES = 100_000
"""Also when what the model's functions stand for is counted wherever they are called."""
MAX_TENSOR_BYTES = 2**32
"""Of one tensor that the model claims, and of all of its inputs together."""
MAX_DEPTH = 16
"""How deep graphs may lie in graphs, and calls of functions in functions."""
MAX_RANK = 16
MAX_NAME = 1024
MAX_INPUTS = 1024

_BITS = {
    getattr(TensorProto, name): bits
    for bits, names in ((4, ("UINT4", "INT4", "FLOAT4E2M1")), (2, ("UINT2", "INT2")))
    for name in names
    if hasattr(TensorProto, name)
}
_TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")

_Function = tuple[str, str, str]
"""What a function is called by: domain, name and overload."""


def examine(proto: Any) -> None:
    """Raise `ModelInvalid` for a parsed model with anything in it that is refused, wherever it hides."""
    _count(len(proto.graph.node) + sum(len(function.node) for function in proto.functions))
    training = [graph for info in proto.training_info for graph in (info.initialization, info.algorithm)]
    nodes = 0
    for graph in (proto.graph, *training):
        nodes += _graph(graph, 0)
    for function in proto.functions:
        nodes += _nodes(function.node, 0)
        for attribute in function.attribute_proto:
            nodes += _attribute(attribute, 0)
    _count(nodes)
    _count(_Functions(proto.functions).expanded(proto.graph.node))
    for graph in (proto.graph, *training):
        _claims(graph)


def size_bits(data_type: int) -> int:
    """Return how many bits an element has. Raises `ModelInvalid` for a type that there is not."""
    try:
        return _BITS.get(data_type) or 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except KeyError:
        raise ModelInvalid(f"The model has a tensor of element type {data_type}, which is unknown.") from None


def _count(nodes: int) -> None:
    if nodes > MAX_NODES:
        raise ModelInvalid(f"The model has {nodes} nodes; at most {MAX_NODES} are accepted.")


def _graph(graph: Any, depth: int) -> int:
    """Examine a graph and return the number of nodes in it, those of graphs within included."""
    if depth > MAX_DEPTH:
        raise ModelInvalid(f"The model has graphs in graphs, deeper than the {MAX_DEPTH} that are accepted.")
    if graph.sparse_initializer:
        raise ModelInvalid("The model has sparse weights, which are not supported; save it with dense ones.")
    for tensor in graph.initializer:
        _tensor(tensor)
    _names(value.name for values in (graph.input, graph.output, graph.value_info) for value in values)
    return _nodes(graph.node, depth)


def _nodes(nodes: Any, depth: int) -> int:
    count = len(nodes)
    for node in nodes:
        _names((node.name, node.op_type, node.domain, *node.input, *node.output))
        for attribute in node.attribute:
            count += _attribute(attribute, depth)
            _count(count)
    return count


def _attribute(attribute: Any, depth: int) -> int:
    """Examine an attribute, whatever it says that it holds, and return the number of nodes in it."""
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise ModelInvalid(f"Attribute {attribute.name[:MAX_NAME]!r} is a sparse tensor: not supported.")
    if attribute.HasField("t"):
        _tensor(attribute.t)
    for tensor in attribute.tensors:
        _tensor(tensor)
    graphs = [attribute.g] if attribute.HasField("g") else []
    return sum(_graph(graph, depth + 1) for graph in (*graphs, *attribute.graphs))


def _tensor(tensor: Any) -> None:
    """Refuse a tensor whose elements are elsewhere, or are fewer than its shape says."""
    _names([tensor.name])
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ModelInvalid(
            f"The weights of {tensor.name!r} are in another file; save the model with its weights "
            "inside (onnx.save without save_as_external_data)."
        )
    if len(tensor.dims) > MAX_RANK or any(extent < 0 for extent in tensor.dims):
        raise ModelInvalid(f"Tensor {tensor.name!r} has the shape {list(tensor.dims)[:MAX_RANK]}: refused.")
    bits = size_bits(tensor.data_type)
    claimed = prod(tensor.dims)
    there = sum(len(getattr(tensor, field)) for field in _TYPED) * max(1, 8 // bits)
    there = max(there, len(tensor.raw_data) * 8 // bits)
    if claimed > there:
        raise ModelInvalid(
            f"Tensor {tensor.name!r} is said to have {claimed} elements, but the file has only {there}."
        )


def _names(names: Iterable[str]) -> None:
    for name in names:
        if len(name) > MAX_NAME:
            raise ModelInvalid(
                f"The model has a name of {len(name)} characters, {name[:40]!r}...; "
                f"at most {MAX_NAME} are accepted."
            )


class _Functions:
    """The model's own functions, and how many nodes each stands for when all calls in it are resolved."""

    def __init__(self, functions: Any) -> None:
        self._functions = {(one.domain, one.name, one.overload): one for one in functions}
        self._known: dict[_Function, tuple[int, int]] = {}

    def expanded(self, nodes: Any) -> int:
        """Return how many nodes these come to."""
        return self._measured(nodes, 0)[0]

    def _measured(self, nodes: Any, depth: int) -> tuple[int, int]:
        """Return to how many nodes these come, and how deep calls lie in them."""
        if depth > MAX_DEPTH:
            raise self._too_deep()
        count = height = 0
        for node in _within(nodes):
            of = (node.domain, node.op_type, node.overload)
            count += 1
            if of in self._functions:
                if of not in self._known:
                    self._known[of] = self._measured(self._functions[of].node, depth + 1)
                more, deep = self._known[of]
                count, height = count + more, max(height, deep + 1)
            if height > MAX_DEPTH:
                raise self._too_deep()
        return count, height

    @staticmethod
    def _too_deep() -> ModelInvalid:
        return ModelInvalid(f"Functions call functions, deeper than the {MAX_DEPTH} that are accepted.")


def _within(nodes: Any) -> Iterator[Any]:
    """Yield nodes, and those of the graphs in them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _within(graph.node)


def _claims(graph: Any) -> None:
    """Refuse nodes that make small constants into tensors that nobody can hold, where that is plain."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            known.update((node.output[0], one.t) for one in node.attribute if one.name == "value")
    for node in graph.node:
        claimed = _claimed(node, known)
        if claimed > MAX_TENSOR_BYTES:
            raise ModelInvalid(
                f"{node.op_type} {node.name[:100]!r} makes a tensor of {claimed} bytes or more; "
                f"at most {MAX_TENSOR_BYTES} are accepted."
            )


_EXTENTS = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Resize": 3}
"""Which input of an operator has the extents of its result, or what they are multiplied by."""


def _claimed(node: Any, known: dict[str, Any]) -> int:
    """Return how many bytes the result of a node has at least, as far as constants tell; 0 for unknown."""
    position = _EXTENTS.get(node.op_type)
    if position is not None and len(node.input) > position:
        values = [abs(value) for value in _whole(known.get(node.input[position]))]
        bits = [size_bits(one.t.data_type) for one in node.attribute if one.name == "value"]
        return prod(values) * max(1, *bits, 8) // 8 if values else 0
    if node.op_type == "Pad" and len(node.input) > 1:
        return sum(max(0, value) for value in _whole(known.get(node.input[1])))
    if node.op_type == "OneHot" and len(node.input) > 1:
        return sum(_whole(known.get(node.input[1])))
    if node.op_type == "Range" and len(node.input) == 3:
        ends = [_whole(known.get(name)) for name in node.input]
        if all(len(end) == 1 for end in ends) and ends[2][0]:
            return max(0, (ends[1][0] - ends[0][0]) // ends[2][0])
    if node.op_type.startswith("Random"):
        return sum(prod(one.ints) for one in node.attribute if one.name == "shape")
    return 0


def _whole(tensor: Any) -> list[int]:
    """Return the elements of a small tensor of whole numbers; none for any other."""
    if tensor is None or tensor.data_type not in (TensorProto.INT64, TensorProto.INT32):
        return []
    if prod(tensor.dims) > 2 * MAX_RANK:
        return []
    return [int(value) for value in onnx.numpy_helper.to_array(tensor).reshape(-1)]
