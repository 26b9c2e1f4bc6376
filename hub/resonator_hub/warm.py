"""Loads everything that a stage needs, once, before the first call (DESIGN section 10)."""

import inspect
import os
import sys
from types import FrameType

# One thread for each library: a worker is one compute slot, and forking is safe only without threads.
_SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TVM_NUM_THREADS": "1",
}


def load() -> None:
    """Import TVM, the tensor intrinsics and XGBoost: about 3 s, where it takes 25 s unaided.

    TVM calls `inspect.stack()` for each of the hundreds of TVMScript functions it parses at import,
    and that reads the source around every frame. Nothing imported here looks at that source.
    """
    os.environ.update(_SINGLE_THREADED)
    os.environ.pop("TVM_USE_RUNTIME_LIB", None)  # the compiler is wanted too
    original = inspect.stack
    inspect.stack = _bare_stack
    try:
        import tvm.relax.frontend.onnx
        import tvm.s_tir.meta_schedule
        import tvm.s_tir.tensor_intrin  # noqa: F401
        import xgboost  # noqa: F401
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
