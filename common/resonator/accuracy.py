"""How far an output is from its reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def relative_error(actual: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """Return max |actual - expected| / max |expected| over all elements.

    One scale for the whole tensor, so that elements near zero do not turn rounding into an error. Where
    `expected` is all zero the absolute error is returned. Different shapes, and values that are not
    finite on one side only, are infinitely far apart.
    """
    if actual.shape != expected.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    left, right = actual.astype(np.float64), expected.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    finite = np.isfinite(left) & np.isfinite(right)
    if not bool(np.all(same | finite)):
        return float("inf")
    error = float(np.max(np.abs(left[finite] - right[finite]), initial=0.0))
    scale = float(np.max(np.abs(right[finite]), initial=0.0))
    return error / scale if scale > 0.0 else error


def worst_error(
    actual: Mapping[str, NDArray[np.generic]], expected: Mapping[str, NDArray[np.generic]]
) -> float:
    """Return the largest relative error over all expected outputs; a missing output is infinitely far."""
    errors = (
        relative_error(actual[name], value) if name in actual else float("inf")
        for name, value in expected.items()
    )
    return max(errors, default=0.0)
