"""Cuts grids of pixels or latents into sequences of flattened patches, and joins them again."""

import numpy as np
from einops import rearrange


def to_patches(values: np.ndarray, patch_size: int) -> np.ndarray:
    """Cut `[H W c]` into flattened patches in reading order, `[N patch_size*patch_size*c]`."""
    return rearrange(values, "(r p) (s q) c -> (r s) (p q c)", p=patch_size, q=patch_size)


def from_patches(patches: np.ndarray, grid: tuple[int, int], patch_size: int) -> np.ndarray:
    """Join flattened patches to `[... H W c]`, the inverse of `to_patches`.

    Args:
        patches: patches in reading order, `[... N patch_size*patch_size*c]`.
        grid: rows and columns of patches.
        patch_size: height and width of a patch.
    """
    return rearrange(
        patches,
        "... (r s) (p q c) -> ... (r p) (s q) c",
        r=grid[0],
        s=grid[1],
        p=patch_size,
        q=patch_size,
    )
