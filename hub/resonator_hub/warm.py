"""Loads everything that a stage needs, once, before the first call (DESIGN section 10)."""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# One thread for each library: a worker is one compute slot, and forking is safe only without threads.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TVM_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # it would write a number of this machine to disk, and look for a network
}


_STAGES = ("onnxslim", "onnxruntime", "resonator_hub.search", "resonator_hub.artifacts")
_INTRINSICS = "tvm.s_tir.tensor_intrin"
_CPU_INTRINSICS = ("x86", "arm_cpu", "riscv_cpu", "hexagon")
_GPU_INTRINSICS = ("cuda", "rocm")


def load() -> None:
    """Import TVM, the CPUs' tensor intrinsics and the stages: about 3 s, where it takes 25 s unaided."""
    os.environ.update(_ENVIRONMENT)
    os.environ.pop("TVM_USE_RUNTIME_LIB", None)  # the compiler is wanted too
    with _bare_stacks():
        import tvm.relax.frontend.onnx
        import tvm.s_tir.meta_schedule  # noqa: F401
        import xgboost  # noqa: F401

        _import_intrinsics(_CPU_INTRINSICS)
    for name in _STAGES:  # a worker that reads a model reads no other: it should find these there
        importlib.import_module(name)


def load_onnx() -> None:
    """Import what looks at models before they are accepted: 0.3 s, and a fifth of TVM's memory."""
    os.environ.update(_ENVIRONMENT)
    from resonator_hub.calls import signature
    from resonator_hub.frontends.onnx import check

    signature(check)  # takes longer than checking


def load_gpu() -> None:
    """Import the GPUs' tensor intrinsics, unless they are there: 2 s that a fleet of CPUs need not wait."""
    with _bare_stacks():
        _import_intrinsics(_GPU_INTRINSICS)


def _import_intrinsics(names: tuple[str, ...]) -> None:
    """Import modules of a package whose own `__init__` would import all of them."""
    if _INTRINSICS not in sys.modules:
        spec = importlib.util.find_spec(_INTRINSICS)
        assert spec is not None
        sys.modules[_INTRINSICS] = importlib.util.module_from_spec(spec)
    for name in names:
        importlib.import_module(f"{_INTRINSICS}.{name}")


@contextmanager
def _bare_stacks() -> Iterator[None]:
    """Have stacks inspected without reading source, which TVM does for each of hundreds of functions."""
    original = inspect.stack
    inspect.stack = _bare_stack
    try:
        yield
    finally:
        inspect.stack = original


def _bare_stack(context: int = 1) -> list[inspect.FrameInfo]:
    """Return the caller's stack as `inspect.stack` does, without reading any source."""
    frames: list[inspect.FrameInfo] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return frames
