"""How far two sets of pictures are apart, by the features that a network sees in them.

FID and KID are these distances by the features of Inception v3. By those of another network the
numbers are others, and must not bear the name FID, nor be compared with any that do.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from oneflow_jax.errors import UserError


class KernelDistance(NamedTuple):
    """A mean, and its standard error."""

    mean: float
    error: float


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Fréchet distance, squared, of the Gaussians with the sets' means and covariances.

    |mean - mean'|² + tr(S + S' - 2 (S S')^½), as Heusel et al., GANs Trained by a Two Time-Scale
    Update Rule (2017), measure. It is biased: upward, the more the fewer vectors there are, and so
    above 0 for two samples of one source. Report n and m, and compare only what has the same.

    Raises:
        UserError: sets that cannot be compared, or of less than two vectors.
    """
    x, y = validate_pair(x, y)
    mean, root = _gaussian(x)
    other_mean, other_root = _gaussian(y)
    # With S = R' R and S' = Q' Q, the eigenvalues of S S' are the squared singular values of R Q':
    # none is negative or complex by rounding, as they come out of a matrix's root when n < d.
    cross = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    spread = np.square(root).sum() + np.square(other_root).sum()
    return float(np.square(mean - other_mean).sum() + spread - 2 * cross)


def kernel_distance(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    size: int,
    subsets: int = 100,
    seed: int = 0,
) -> KernelDistance:
    """Kernel distance: squared maximum mean discrepancy with the kernel (x.y / d + 1)³.

    Binkowski et al., Demystifying MMD GANs (2018): the unbiased estimate, which is about 0, also
    below it, for two samples of one source, however few.

    Args:
        x: feature vectors.
        y: likewise, perhaps more or fewer.
        size: how many vectors of each a subset has.
        subsets: how many times to draw subsets, each without repetition.
        seed: of the draws.

    Returns:
        The mean over subsets, and its standard error as if they were independent. They share
        vectors: it tells how much the draws matter, not how much other pictures would.

    Raises:
        UserError: sets that cannot be compared; a size below 2 or above n or m; subsets below 2.
    """
    x, y = validate_pair(x, y)
    if not 2 <= size <= min(len(x), len(y)):
        raise UserError(f"size={size}: give 2 to {min(len(x), len(y))}, the smaller set's.")
    if subsets < 2:
        raise UserError(f"subsets={subsets}: give 2 or more.")
    rng = np.random.default_rng(seed)
    values = [
        _mmd(
            x[rng.choice(len(x), size, replace=False)],
            y[rng.choice(len(y), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(subsets)))


def validate_pair(
    x: np.ndarray, y: np.ndarray, min_count: int = 2
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Both sets in float64, if they can be compared.

    Raises:
        UserError: vectors of different widths, or fewer than `min_count` in one of the sets.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UserError(f"Give vectors [n d] of one width, not {x.shape} and {y.shape}.")
    if min(len(x), len(y)) < min_count:
        raise UserError(f"Give {min_count} vectors or more of each set, not {len(x)} and {len(y)}.")
    return x.astype(np.float64), y.astype(np.float64)


def _gaussian(
    vectors: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "r d"]]:
    """The mean; and a matrix R with R' R the covariance, of no more rows than columns."""
    mean = vectors.mean(axis=0)
    root = np.linalg.qr(vectors - mean, mode="r")
    return mean, root / np.sqrt(len(vectors) - 1)


def _mmd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"]) -> float:
    """Mean of the kernel within each set, no vector with itself, less twice that between them."""
    within = [_cubic_kernel(same, same) for same in (x, y)]
    count = len(x)
    own = sum((values.sum() - np.trace(values)) / (count * (count - 1)) for values in within)
    return float(own - 2 * _cubic_kernel(x, y).mean())


def _cubic_kernel(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3
