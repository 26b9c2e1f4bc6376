"""The features of a candidate as bytes: a float32 array of shape (stores, 164), compressed."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

WIDTH = 164
MAX_STORES = 4096


def pack_features(array: NDArray[np.floating]) -> bytes:
    """Return the features of one candidate as bytes; `array` has the shape (stores, 164)."""
    if array.ndim != 2 or array.shape[1] != WIDTH:
        raise ValueError(f"features have the shape {array.shape}, not (stores, {WIDTH})")
    return zlib.compress(np.ascontiguousarray(array, dtype="<f4").tobytes(), 6)


def unpack_features(data: bytes) -> NDArray[np.float32]:
    """Return the array that `pack_features` packed."""
    decoder = zlib.decompressobj()
    try:
        raw = decoder.decompress(data, MAX_STORES * WIDTH * 4)
    except zlib.error as error:
        raise ValueError(f"these are no features: {error}") from None
    if not decoder.eof or not raw or len(raw) % (WIDTH * 4):
        raise ValueError(f"these are no features: at most {MAX_STORES} rows of {WIDTH} are accepted")
    return np.frombuffer(raw, dtype="<f4").reshape(-1, WIDTH)
