"""How far two sets of pictures are apart, by the features that a network sees in them.

FID and KID are these distances by the features of Inception v3. By those of another network the
numbers are others, and must not bear the name FID, nor be compared with any that do.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from oneflow_jax.errors import UserError


class Estimate(NamedTuple):
    """A mean, and its standard error."""

    mean: float
    error: float


def frechet(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> float:
    """Fréchet distance, squared, of the Gaussians with the sets' means and covariances.

    |mean - mean'|² + tr(S + S' - 2 (S S')^½), as Heusel et al., GANs Trained by a Two Time-Scale
    Update Rule (2017), measure. It is biased: upward, the more the fewer vectors there are, and so
    above 0 for two samples of one source. Report n and m, and compare only what has the same.

    Raises:
        UserError: sets that cannot be compared, or of less than two vectors.
    """
    one, other = pair(one, other)
    mean, root = _gaussian(one)
    other_mean, other_root = _gaussian(other)
    # With S = R' R and S' = Q' Q, the eigenvalues of S S' are the squared singular values of R Q':
    # none is negative or complex by rounding, as they come out of a matrix's root when n < d.
    cross = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    spread = np.square(root).sum() + np.square(other_root).sum()
    return float(np.square(mean - other_mean).sum() + spread - 2 * cross)


def kernel(
    one: Float[np.ndarray, "n d"],
    other: Float[np.ndarray, "m d"],
    size: int,
    subsets: int = 100,
    seed: int = 0,
) -> Estimate:
    """Kernel distance: squared maximum mean discrepancy with the kernel (x.y / d + 1)³.

    Binkowski et al., Demystifying MMD GANs (2018): the unbiased estimate, which is about 0, also
    below it, for two samples of one source, however few.

    Args:
        one: feature vectors.
        other: likewise, perhaps more or fewer.
        size: how many vectors of each a subset has.
        subsets: how many times to draw subsets, each without repetition.
        seed: of the draws.

    Returns:
        The mean over subsets, and its standard error as if they were independent. They share
        vectors: it tells how much the draws matter, not how much other pictures would.

    Raises:
        UserError: sets that cannot be compared; a size below 2 or above n or m; subsets below 2.
    """
    one, other = pair(one, other)
    if not 2 <= size <= min(len(one), len(other)):
        raise UserError(f"size={size}: give 2 to {min(len(one), len(other))}, the smaller set's.")
    if subsets < 2:
        raise UserError(f"subsets={subsets}: give 2 or more.")
    rng = np.random.default_rng(seed)
    values = [
        _discrepancy(
            one[rng.choice(len(one), size, replace=False)],
            other[rng.choice(len(other), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(subsets)))


def pair(
    one: np.ndarray, other: np.ndarray, least: int = 2
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Both sets in float64, if they can be compared.

    Raises:
        UserError: vectors of different widths, or fewer than `least` in one of the sets.
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise UserError(f"Give vectors [n d] of one width, not {one.shape} and {other.shape}.")
    if min(len(one), len(other)) < least:
        raise UserError(
            f"Give {least} vectors or more of each set, not {len(one)} and {len(other)}."
        )
    return one.astype(np.float64), other.astype(np.float64)


def _gaussian(
    vectors: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "r d"]]:
    """The mean; and a matrix R with R' R the covariance, of no more rows than columns."""
    mean = vectors.mean(axis=0)
    root = np.linalg.qr(vectors - mean, mode="r")
    return mean, root / np.sqrt(len(vectors) - 1)


def _discrepancy(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "n d"]) -> float:
    """Mean of the kernel within each set, no vector with itself, less twice that between them."""
    within = [_cubes(same, same) for same in (one, other)]
    count = len(one)
    own = sum((values.sum() - np.trace(values)) / (count * (count - 1)) for values in within)
    return float(own - 2 * _cubes(one, other).mean())


def _cubes(
    one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    return (one @ other.T / one.shape[1] + 1) ** 3
