"""Squares of a grid as rows of numbers, and back."""

import numpy as np
from einops import rearrange


def to_patches(values: np.ndarray, patch_size: int) -> np.ndarray:
    """Cut `[H W c]` into squares of `patch_size`, in reading order: `[N side*side*c]`."""
    return rearrange(values, "(r p) (s q) c -> (r s) (p q c)", p=patch_size, q=patch_size)


def from_patches(patches: np.ndarray, grid: tuple[int, int], patch_size: int) -> np.ndarray:
    """What `to_patches` has cut, `[... H W c]` of `[... N side*side*c]`; `grid` counts squares."""
    return rearrange(
        patches,
        "... (r s) (p q c) -> ... (r p) (s q) c",
        r=grid[0],
        s=grid[1],
        p=patch_size,
        q=patch_size,
    )
