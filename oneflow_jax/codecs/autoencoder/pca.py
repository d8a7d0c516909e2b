"""The best linear codec: principal components of squares of pixels; others are held against it."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from oneflow_jax.codecs import grids


def fitted(
    pictures: UInt8[np.ndarray, "n H W 3"], side: int, numbers: int
) -> Callable[[np.ndarray], np.ndarray]:
    """The codec that keeps `numbers` numbers of every square of `side` x `side` pixels.

    No linear codec loses less of these pictures in squared error. Returns what rebuilds pictures,
    uint8 `[n H W 3]` of the same.
    """
    squares = _cut(pictures, side)
    # In float64: a float32 loses count of so many.
    mean = squares.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, vectors = np.linalg.eigh(np.cov(squares - mean, rowvar=False))
    basis = vectors[:, ::-1][:, :numbers]

    def rebuilt(shown: np.ndarray) -> np.ndarray:
        kept = (_cut(shown, side) - mean) @ basis @ basis.T + mean
        grid = (shown.shape[1] // side, shown.shape[2] // side)
        pixels = grids.joined(kept.reshape(len(shown), grid[0] * grid[1], -1), grid, side)
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    return rebuilt


def _cut(pictures: np.ndarray, side: int) -> np.ndarray:
    rows = [grids.cut(picture.astype(np.float32), side) for picture in pictures]
    return np.concatenate(rows)
