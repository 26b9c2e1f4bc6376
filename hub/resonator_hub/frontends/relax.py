"""Prepared ONNX graphs become Relax modules of fused operators, and those become tasks."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resonator.tensors import TensorSpec
from resonator_hub import ir
from resonator_hub.frontends.layout import channels_last
from resonator_hub.frontends.model import ModelInvalid, Workload
from resonator_hub.frontends.winograd import minimal_filtering
from resonator_hub.processor import processor_of

if TYPE_CHECKING:
    from tvm.ir import IRModule


def import_graph(prepared: Any, target: str) -> IRModule:
    """Return the model as a module of fused operators whose weight layouts are free to be chosen.

    Raises `ModelInvalid`, naming the operators that TVM does not know.
    """
    import tvm
    from tvm import relax
    from tvm.relax import transform
    from tvm.relax.frontend.onnx import from_onnx

    simplify = [
        transform.DecomposeOpsForInference(),
        transform.FastMathTransform(),  # exp, erf and tanh as polynomials, in vectors, not by calls of libm
        transform.CanonicalizeBindings(),
        transform.FoldConstant(),
    ]
    fuse = [relax.get_pipeline("zero"), transform.AttachAttrLayoutFreeBuffers()]
    compiled_for = ir.parse_target(target)
    try:
        with compiled_for, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ONNX's checker disapproves of much that works
            module = from_onnx(prepared, keep_params_in_input=False)
            module = tvm.transform.Sequential(simplify)(module)
            if processor := processor_of(target):
                module = minimal_filtering(channels_last(module), processor)
            return tvm.transform.Sequential(fuse)(module)
    except tvm.error.OpNotImplemented as error:
        names = str(error).rpartition(":")[2].strip()
        raise ModelInvalid(f"The model has operators that are not supported: {names}.") from error
    except MemoryError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
        raise ModelInvalid(f"TVM cannot import the model: {reason}.") from error


def output_specs(module: IRModule, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Return what `main` gives, by `names`. Raises `ModelInvalid` for shapes that depend on data."""
    from tvm import relax

    result = module["main"].ret_ty
    fields = list(result.fields) if isinstance(result, relax.TupleType) else [result]
    return tuple(_output_spec(name, field) for name, field in zip(names, fields, strict=True))


def _output_spec(name: str, field: Any) -> TensorSpec:
    try:
        shape = tuple(int(extent) for extent in field.shape)
    except (AttributeError, TypeError):
        raise ModelInvalid(
            f"The shape of output {name!r} depends on the data; only fixed shapes are accepted."
        ) from None
    return TensorSpec(name=name, shape=shape, dtype=str(field.dtype))


def tasks(module: IRModule, target: str) -> tuple[Workload, ...]:
    """Return each distinct operator of the module once, heaviest work (weight x flops) first."""
    from tvm.s_tir import meta_schedule
    from tvm.s_tir.analysis import estimate_tir_flops

    found: dict[str, Workload] = {}
    for task in meta_schedule.relax_integration.extract_tasks(module, ir.parse_target(target)):
        operator = task.dispatched[0]
        if operator["main"].attrs.get("tirx.is_scheduled"):
            continue
        packed = ir.pack_module(operator)
        identity = digest(packed)
        known = found.get(identity)
        structure, extents = ir.likeness(ir.unpack_module(packed))
        found[identity] = Workload(
            name=known.name if known else str(task.task_name),
            weight=int(task.weight) + (known.weight if known else 0),
            module=packed,
            digest=identity,
            flops=float(estimate_tir_flops(operator)),
            structure=structure,
            extents=extents,
        )
    return tuple(sorted(found.values(), key=lambda task: (-task.weight * task.flops, task.digest)))


def digest(workload: bytes) -> str:
    """Return what names a packed workload everywhere: its SHA-256, in hex."""
    return hashlib.sha256(workload).hexdigest()
