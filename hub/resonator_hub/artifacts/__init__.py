"""Best records become a compiled model, verified against ONNX Runtime."""

from resonator_hub.artifacts.compiled import Best, Compiled, compile_model
from resonator_hub.artifacts.reference import Reference, answers, pack_arrays, reference, unpack_arrays

__all__ = [
    "Best",
    "Compiled",
    "Reference",
    "answers",
    "compile_model",
    "pack_arrays",
    "reference",
    "unpack_arrays",
]
