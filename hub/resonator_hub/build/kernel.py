"""A candidate becomes a kernel: a shared library that the TVM runtime alone can load."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resonator.failures import Failure, FailureKind
from resonator.tensors import TensorSpec
from resonator_hub import ir
from resonator_hub.build.link import LinkFailed, link

if TYPE_CHECKING:
    from tvm.ir import IRModule

MAX_DETAIL = 500


@dataclass(frozen=True)
class Kernel:
    """A shared library with one function, `main`, that takes `arguments` in order, the outputs last."""

    library: bytes
    digest: str
    """SHA-256 of `library`, in hex."""
    arguments: tuple[TensorSpec, ...]


def build(workload: bytes, trace: bytes, target: str) -> Kernel | Failure:
    """Return the kernel of a candidate, or a BUILD_ERROR with the reason.

    An empty trace gives the workload as it is, unscheduled. About 0.3 s for a convolution. Raises
    `LinkerMissing` where this machine has no linker for the target: that is not the candidate's fault.
    """
    import tvm

    compiled_for = ir.parse_target(target)
    try:
        scheduled = _without_weight_rewrites(ir.apply_trace(trace, ir.unpack_module(workload)).mod)
        executable = tvm.compile(scheduled, target=compiled_for)
        arguments = _arguments(scheduled)
        with tempfile.TemporaryDirectory(prefix="resonator-") as folder:
            object_file, library = Path(folder, "kernel.o"), Path(folder, "kernel.so")
            getattr(executable, "mod", executable).write_to_file(str(object_file))
            link(library, [object_file], target)
            data = library.read_bytes()
    except LinkFailed as error:
        return Failure(kind=FailureKind.BUILD_ERROR, detail=str(error)[:MAX_DETAIL])
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        # TVM raises all of these, and its own errors derive from them, for schedules it cannot lower.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Failure(kind=FailureKind.BUILD_ERROR, detail=lines[-1].strip()[:MAX_DETAIL])
    return Kernel(library=data, digest=hashlib.sha256(data).hexdigest(), arguments=arguments)


def _without_weight_rewrites(module: IRModule) -> IRModule:
    """Take out the step that brings a weight into its new layout: in the model it runs once, ahead of time.

    The buffer keeps its size, so that the kernel still takes arguments of the workload's shapes.
    """
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

    return RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(module)


def _arguments(module: IRModule) -> tuple[TensorSpec, ...]:
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo

    infos = ArgInfo.from_entry_func(module, remove_preproc=False)
    return tuple(
        TensorSpec(name=f"a{number}", shape=tuple(int(e) for e in info.shape), dtype=str(info.dtype))
        for number, info in enumerate(infos)
    )
