"""The best linear codec: principal components of squares of pixels; others are held against it."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from oneflow_jax.codecs import grids


def fit(
    images: UInt8[np.ndarray, "n H W 3"], patch_size: int, num_components: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit the codec that keeps `num_components` numbers of each `patch_size` x `patch_size` square.

    No linear codec loses less of these pictures in squared error. Returns what rebuilds pictures,
    uint8 `[n H W 3]` of the same.
    """
    squares = _to_patches(images, patch_size)
    # In float64: a float32 loses count of so many.
    mean = squares.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, vectors = np.linalg.eigh(np.cov(squares - mean, rowvar=False))
    basis = vectors[:, ::-1][:, :num_components]

    def rebuilt(shown: np.ndarray) -> np.ndarray:
        kept = (_to_patches(shown, patch_size) - mean) @ basis @ basis.T + mean
        grid = (shown.shape[1] // patch_size, shown.shape[2] // patch_size)
        pixels = grids.from_patches(
            kept.reshape(len(shown), grid[0] * grid[1], -1), grid, patch_size
        )
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    return rebuilt


def _to_patches(images: np.ndarray, patch_size: int) -> np.ndarray:
    rows = [grids.to_patches(picture.astype(np.float32), patch_size) for picture in images]
    return np.concatenate(rows)
