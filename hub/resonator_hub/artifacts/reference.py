"""What a model must answer: ONNX Runtime's outputs on random inputs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resonator.arrays import read_arrays
from resonator.tensors import TensorSpec
from resonator_hub.calls import once
from resonator_hub.frontends.model import ModelInvalid
from resonator_hub.frontends.onnx import check

MAX_INDEX = 8
"""Integer inputs are mostly indices: below this they are valid for any vocabulary."""


@dataclass(frozen=True)
class Reference:
    """Inputs and the right outputs, each the bytes of an npz file that holds arrays by their names."""

    inputs: bytes
    outputs: bytes


def reference(model: bytes, shapes: Mapping[str, Sequence[int]], seed: int) -> Reference:
    """Return random inputs for `model` and what ONNX Runtime, on one core, makes of them.

    The model runs as the user gave it, so that a mistake of our own preparation shows up as a difference.
    Equal arguments give equal inputs. Raises `ModelInvalid`.
    """
    import onnxruntime

    card = check(model, shapes)
    random = np.random.default_rng(seed)
    inputs = {spec.name: _random_array(spec, random) for spec in card.inputs}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
    except MemoryError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common base of their own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelInvalid(f"ONNX Runtime cannot run the model: {lines[0].rstrip('.')}.") from error
    return Reference(inputs=pack_arrays(inputs), outputs=pack_arrays(outputs))


@once
def answers(model: bytes, shapes: Mapping[str, Sequence[int]], seed: int) -> bytes:
    """Return a reference as devices take it: an npz of `in:NAME` and `out:NAME`. Raises `ModelInvalid`."""
    found = reference(model, shapes, seed)
    inputs = {f"in:{name}": array for name, array in unpack_arrays(found.inputs).items()}
    outputs = {f"out:{name}": array for name, array in unpack_arrays(found.outputs).items()}
    return pack_arrays({**inputs, **outputs})


def pack_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return arrays, by name, as the bytes of an npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack_arrays(data: bytes) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of an npz file by name. Raises `ArraysInvalid`."""
    return read_arrays(io.BytesIO(data))


def _random_array(spec: TensorSpec, random: np.random.Generator) -> NDArray[np.generic]:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return random.standard_normal(spec.shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, spec.shape).astype(dtype)
    return random.integers(0, MAX_INDEX, spec.shape).astype(dtype)
