"""What a frontend makes of a model file, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from resonator.errors import ResonatorError
from resonator.tensors import TensorSpec

MAX_MODEL_BYTES = 2**31 - 1
"""What protobuf can hold."""


class ModelInvalid(ResonatorError):
    """The model, or what was said about it, cannot be used; the sentence says why and what to do."""


@dataclass(frozen=True)
class ModelCard:
    """What can be told about a model without compiling it."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    operators: tuple[str, ...]
    """Each kind of operator in the graph once, sorted."""
    nodes: int
    parameters: int
    """The number of weights that the file carries."""


@dataclass(frozen=True)
class Workload:
    """One distinct operator of a model: a task to tune."""

    name: str
    weight: int
    """How many times the model runs it."""
    module: bytes
    digest: str
    """SHA-256 of `module`, in hex; equal operators of different models have equal digests."""
    flops: float
    structure: str = ""
    """What workloads that differ in the lengths of their loops alone have in common."""
    extents: tuple[int, ...] = ()
    """How long the loops are."""


@dataclass(frozen=True)
class Extraction:
    """The tasks of a model, and what its compiled form takes and gives."""

    tasks: tuple[Workload, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
