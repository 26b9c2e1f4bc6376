"""The arguments kernels run on, allocated once per set of shapes. For the profiler's process only."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SEED = 20_11

Specs = list[tuple[list[int], str]]
"""Shape and dtype of each argument."""


class Arguments:
    """Keeps tensors by their shapes, up to `most` bytes; the longest unused give way."""

    def __init__(self, most: int):
        self._most = most
        self._kept: OrderedDict[str, tuple[int, list[Any]]] = OrderedDict()

    def get(self, specs: Specs, device: Any) -> list[Any]:
        """Return tensors of these shapes on a TVM device."""
        from tvm.runtime import tensor

        key = f"{device} {specs}"
        if key not in self._kept:
            size = sum(math.prod(shape) * np.dtype(_named(dtype)).itemsize for shape, dtype in specs)
            self._make_room(size)
            # One after the other: an array and its copy on the device need not both be held for all.
            self._kept[key] = size, [tensor(random(shape, dtype), device) for shape, dtype in specs]
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def clear(self) -> None:
        """Free everything."""
        self._kept.clear()

    def _make_room(self, size: int) -> None:
        while self._kept and sum(kept for kept, _ in self._kept.values()) + size > self._most:
            self._kept.popitem(last=False)


def random(shape: list[int], dtype: str) -> NDArray[Any]:
    """Return the same numbers every time: not zeros, which mislead, nor denormals, which are slow."""
    generator = np.random.default_rng(_SEED)
    if dtype.startswith(("int", "uint", "bool")):
        # Integers may be indices: 0 and 1 are inside of nearly everything.
        return generator.integers(0, 2, shape).astype(dtype)
    numbers = generator.random(shape, dtype=np.float32)
    numbers *= 0.9
    numbers += 0.1
    return numbers.astype(_named(dtype), copy=False)


def _named(dtype: str) -> Any:
    if hasattr(np, dtype):
        return dtype
    import ml_dtypes  # bfloat16 and its kind, which numpy does not know

    return getattr(ml_dtypes, dtype)
