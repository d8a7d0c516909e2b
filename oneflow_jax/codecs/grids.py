"""Squares of a grid as rows of numbers, and back."""

import numpy as np
from einops import rearrange


def cut(values: np.ndarray, side: int) -> np.ndarray:
    """Squares of `side` x `side` places in reading order, `[N side*side*c]`, of `[H W c]`."""
    return rearrange(values, "(r p) (s q) c -> (r s) (p q c)", p=side, q=side)


def joined(rows: np.ndarray, grid: tuple[int, int], side: int) -> np.ndarray:
    """What `cut` has cut, `[... H W c]` of `[... N side*side*c]`; `grid` counts squares."""
    return rearrange(
        rows,
        "... (r s) (p q c) -> ... (r p) (s q) c",
        r=grid[0],
        s=grid[1],
        p=side,
        q=side,
    )
