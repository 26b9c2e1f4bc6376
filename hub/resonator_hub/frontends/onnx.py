"""ONNX models: checked at the door without TVM, then prepared and cut into tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from resonator.tensors import MAX_NAME, TensorSpec
from resonator_hub.calls import once
from resonator_hub.frontends import limits
from resonator_hub.frontends.model import MAX_MODEL_BYTES, Extraction, ModelCard, ModelInvalid

MAX_DIMENSION = 2**31 - 1
_UNWANTED = ["FusionGemm"]
"""What onnxslim shall not do: a Gemm between reshapes is not fused with what follows."""

Shapes = Mapping[str, Sequence[int]]


@once
def check(model: bytes, shapes: Shapes) -> ModelCard:
    """Return what `model` is, when it can be imported with the inputs shaped as in `shapes`.

    Takes milliseconds. Raises `ModelInvalid` for bytes that are not a whole ONNX model, for weights in
    other files, for what is beyond `frontends.limits`, and for `shapes` that leave a dimension open or do not
    fit the model's inputs.
    """
    proto = parse(model)
    inputs = _input_specs(proto.graph, shapes)
    return ModelCard(
        name=proto.graph.name,
        inputs=inputs,
        outputs=tuple(value.name for value in proto.graph.output),
        operators=tuple(sorted({node.op_type for node in proto.graph.node})),
        nodes=len(proto.graph.node),
        parameters=sum(prod(tensor.dims) for tensor in proto.graph.initializer),
    )


@once
def extract(model: bytes, shapes: Shapes, target: str) -> Extraction:
    """Return the tasks of `model` for `target` (JSON of a TVM target), each distinct operator once.

    Raises `ModelInvalid`, also for operators that TVM does not know, which it names, and for none at all.
    """
    from resonator_hub.frontends import relax

    prepared, inputs = prepare(model, shapes)
    module = relax.import_graph(prepared, target)
    outputs = relax.output_specs(module, [value.name for value in prepared.graph.output])
    tasks = relax.tasks(module, target)
    if not tasks:
        raise ModelInvalid("The model computes nothing from its inputs: there is nothing to compile.")
    return Extraction(tasks=tasks, inputs=inputs, outputs=outputs)


def prepare(model: bytes, shapes: Shapes) -> tuple[Any, tuple[TensorSpec, ...]]:
    """Return the model as TVM imports it best, and its inputs: fixed shapes, folded, simplified.

    Constants are folded and BatchNorm goes into the convolutions before it, else each would be a kernel.
    Raises `ModelInvalid`.
    """
    import onnxslim

    proto = parse(model)
    inputs = _input_specs(proto.graph, shapes)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    _keep_real_inputs(proto, inputs)
    _replace_sums(proto.graph)
    real_inputs = list(proto.graph.input)
    try:
        slim = onnxslim.slim(proto, skip_fusion_patterns=_UNWANTED)
    except MemoryError:
        raise
    except Exception as error:
        raise ModelInvalid(f"The model is inconsistent: {_first_line(error)}.") from error
    # An input that no operator reads stays an input, so that callers may go on passing it.
    del slim.graph.input[:]
    slim.graph.input.extend(real_inputs)
    return slim, inputs


def parse(model: bytes) -> Any:
    """Return the ONNX model in `model`. Raises `ModelInvalid` for anything but a whole one within limits."""
    if len(model) > MAX_MODEL_BYTES:
        raise ModelInvalid(f"The model has {len(model)} bytes; at most {MAX_MODEL_BYTES} are accepted.")
    try:
        proto = onnx.load_from_string(model)
    except DecodeError:
        raise ModelInvalid("The model is not an ONNX file, is truncated, or takes too much memory.") from None
    if not proto.graph.node or not proto.graph.output:
        raise ModelInvalid("The model is not an ONNX file, or its graph is empty.")
    if not proto.opset_import:
        raise ModelInvalid("The model names no operator set version; it may be truncated.")
    if proto.ir_version < 3:
        raise ModelInvalid(f"The model has ONNX IR version {proto.ir_version}; 3 or later is accepted.")
    limits.examine(proto)
    return proto


def _real_inputs(graph: Any) -> list[Any]:
    """Return the inputs that a caller passes: before IR version 4 the weights are listed as inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _input_specs(graph: Any, shapes: Shapes) -> tuple[TensorSpec, ...]:
    values = _real_inputs(graph)
    names = [value.name for value in values]
    for name in shapes:
        if name not in names:
            known = ", ".join(map(repr, names)) or "none"
            raise ModelInvalid(f"A shape is given for {name!r}, but the model's inputs are: {known}.")
    if len(values) > limits.MAX_INPUTS:
        raise ModelInvalid(f"The model has {len(values)} inputs; at most {limits.MAX_INPUTS} are accepted.")
    specs = tuple(_input_spec(value, shapes.get(value.name)) for value in values)
    size = sum(prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs)
    if size > limits.MAX_TENSOR_BYTES:
        shown = ", ".join(f"{spec.name!r} {list(spec.shape)}" for spec in specs[:8])
        raise ModelInvalid(
            f"The inputs ({shown}) take {size} bytes; at most {limits.MAX_TENSOR_BYTES} are accepted."
        )
    return specs


def _input_spec(value: Any, given: Sequence[int] | None) -> TensorSpec:
    name = value.name
    if len(name) > MAX_NAME:
        raise ModelInvalid(
            f"Input {name[:40]!r}... has a name of {len(name)} characters; at most {MAX_NAME} are accepted."
        )
    if not value.type.HasField("tensor_type"):
        raise ModelInvalid(f"Input {name!r} is not a tensor; only tensors are accepted.")
    tensor = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        raise ModelInvalid(f"Input {name!r} has no known element type.") from None
    if np.dtype(dtype).kind not in "fiub":
        raise ModelInvalid(f"Input {name!r} is of {dtype}; only numbers and truth values are accepted.")
    declared: tuple[int | str, ...] | None = None
    if tensor.HasField("shape"):
        declared = tuple(d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in tensor.shape.dim)
    shape = _fixed_shape(name, declared, given)
    if len(shape) > limits.MAX_RANK or any(extent > MAX_DIMENSION for extent in shape):
        raise ModelInvalid(
            f"Input {name!r} has the shape {list(shape)[:32]}; {limits.MAX_RANK} extents of at most "
            f"{MAX_DIMENSION} are accepted."
        )
    return TensorSpec(name=name, shape=shape, dtype=dtype)


def _fixed_shape(
    name: str, declared: tuple[int | str, ...] | None, given: Sequence[int] | None
) -> tuple[int, ...]:
    if given is None:
        if declared is None:
            raise ModelInvalid(f"Input {name!r} has no shape; give it: --shape {name}=1,3,224,224.")
        fixed = tuple(extent for extent in declared if isinstance(extent, int))
        if len(fixed) < len(declared):
            text = ", ".join(map(str, declared))
            example = ",".join(str(extent) if isinstance(extent, int) else "1" for extent in declared)
            raise ModelInvalid(
                f"Input {name!r} has the dynamic shape [{text}]; fix it, as in: --shape {name}={example}."
            )
        return fixed
    if len(given) > limits.MAX_RANK or any(not 1 <= extent <= MAX_DIMENSION for extent in given):
        raise ModelInvalid(
            f"The shape of input {name!r} is {list(given)[:32]}; every extent must be positive, at most "
            f"{MAX_DIMENSION}, and there are {limits.MAX_RANK} at most."
        )
    if declared is not None and not _fits(declared, given):
        text = ", ".join(map(str, declared))
        raise ModelInvalid(f"The shape {list(given)} does not fit input {name!r}, which is [{text}].")
    return tuple(given)


def _fits(declared: tuple[int | str, ...], given: Sequence[int]) -> bool:
    return len(declared) == len(given) and all(
        isinstance(extent, str) or extent == chosen for extent, chosen in zip(declared, given, strict=True)
    )


def _keep_real_inputs(proto: Any, inputs: tuple[TensorSpec, ...]) -> None:
    """Leave only the real inputs, with fixed shapes, and drop the shapes derived from dynamic ones."""
    graph = proto.graph
    values = [
        onnx.helper.make_tensor_value_info(
            spec.name,
            onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)),
            spec.shape,
        )
        for spec in inputs
    ]
    del graph.input[:]
    graph.input.extend(values)
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    proto.ir_version = max(proto.ir_version, 4)  # from here on weights need not be listed as inputs


def _replace_sums(graph: Any) -> None:
    """Write each Sum as Adds: TVM stacks the inputs of a Sum into one tensor, and cannot fuse that."""
    nodes = []
    for node in graph.node:
        nodes.extend(_adds(node) if node.op_type == "Sum" and not node.domain else [node])
    del graph.node[:]
    graph.node.extend(nodes)


def _adds(node: Any) -> list[Any]:
    total, output = node.input[0], node.output[0]
    if len(node.input) == 1:
        return [onnx.helper.make_node("Identity", [total], [output])]
    adds = []
    for number, term in enumerate(node.input[1:], start=2):
        partial = output if number == len(node.input) else f"{output}/partial_sum_{number}"
        adds.append(onnx.helper.make_node("Add", [total, term], [partial]))
        total = partial
    return adds


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
