"""The matrices of minimal filtering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scheme:
    """F(m x m, 3 x 3): `m` outputs a tile and side, from m + 2 inputs."""

    outputs: int
    to_input: tuple[tuple[float, ...], ...]
    to_weight: tuple[tuple[float, ...], ...]
    to_output: tuple[tuple[float, ...], ...]

    @property
    def inputs(self) -> int:
        """The side of a tile of the input."""
        return self.outputs + 2

    def tiles(self, extent: int) -> int:
        """Return how many tiles cover an image of this extent."""
        return -(-extent // self.outputs)


F2 = Scheme(
    outputs=2,
    to_input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    to_weight=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    to_output=((1, 1, 1, 0), (0, 1, -1, -1)),
)
F4 = Scheme(
    outputs=4,
    to_input=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    to_weight=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    to_output=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)


def weights(kernel: NDArray[np.float32], scheme: Scheme) -> NDArray[np.float32]:
    """Return weights of shape (3, 3, in, out) transformed, of shape (places, in, out)."""
    g = np.array(scheme.to_weight)
    places = np.einsum("ay,bx,yxio->abio", g, g, kernel.astype(np.float64))
    return np.asarray(places.reshape(-1, *kernel.shape[2:]), dtype=np.float32)
