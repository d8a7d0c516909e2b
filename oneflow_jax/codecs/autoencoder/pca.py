"""Baseline codec: PCA of image patches."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from oneflow_jax.codecs.patches import from_patches, to_patches


def fit(
    images: UInt8[np.ndarray, "n H W 3"], patch_size: int, num_components: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a PCA with `num_components` components to patches of `patch_size` x `patch_size` pixels.

    On these images, no linear codec with `num_components` numbers per patch has a lower squared
    error.

    Returns:
        A function that reconstructs images, from uint8 `[n H W 3]` to uint8 `[n H W 3]`.
    """
    patches = _to_patches(images, patch_size)
    # A float32 sum over this many patches would lose precision.
    mean = patches.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, vectors = np.linalg.eigh(np.cov(patches - mean, rowvar=False))
    basis = vectors[:, ::-1][:, :num_components]

    def reconstruct(batch: np.ndarray) -> np.ndarray:
        projected = (_to_patches(batch, patch_size) - mean) @ basis @ basis.T + mean
        grid = (batch.shape[1] // patch_size, batch.shape[2] // patch_size)
        pixels = from_patches(
            projected.reshape(len(batch), grid[0] * grid[1], -1), grid, patch_size
        )
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    return reconstruct


def _to_patches(images: np.ndarray, patch_size: int) -> np.ndarray:
    rows = [to_patches(picture.astype(np.float32), patch_size) for picture in images]
    return np.concatenate(rows)
