"""Best records become a compiled model, verified against ONNX Runtime."""

from resonator_hub.artifacts.compiled import Best, Compiled, compile_model
from resonator_hub.artifacts.reference import Reference, pack_arrays, reference, unpack_arrays

__all__ = ["Best", "Compiled", "Reference", "compile_model", "pack_arrays", "reference", "unpack_arrays"]
