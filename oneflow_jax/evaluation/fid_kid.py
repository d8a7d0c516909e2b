"""Fréchet distance and kernel distance (MMD) between two sets of image features.

With features of Inception v3 these distances are FID and KID. With features of another network the
values differ: do not call them FID or KID, and do not compare them with published FID or KID.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from oneflow_jax.errors import UserError, check_at_least, check_between


class KernelDistance(NamedTuple):
    """Mean of the kernel distance over subsets, and its standard error."""

    mean: float
    std_error: float


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to both sets.

    The distance is |mean - mean'|² + tr(S + S' - 2 (S S')^½), with covariances S and S', as in
    Heusel et al., GANs Trained by a Two Time-Scale Update Rule (2017). The estimate is biased
    upward; the fewer the vectors, the larger the bias. The estimate is above 0 even for two samples
    of one distribution. Report n and m, and compare only distances of equal n and m.

    Raises:
        UserError: the dimensions of the vectors differ, or a set has fewer than two vectors.
    """
    x, y = validate_pair(x, y)
    mean, root = _gaussian(x)
    other_mean, other_root = _gaussian(y)
    # With covariances S = R^T R and T = Q^T Q, the trace of (S T)^½ is the sum of the singular
    # values of R Q^T. These are never negative or complex, unlike the eigenvalues of a matrix root
    # when n < d.
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
    """Return the squared maximum mean discrepancy with the kernel (x.y / d + 1)³.

    Binkowski et al., Demystifying MMD GANs (2018), define the metric. The estimate is unbiased:
    for two samples of one distribution, and any number of vectors, it is about 0 and may be
    negative.

    Args:
        x: feature vectors.
        y: feature vectors; their number may differ from that of `x`.
        size: number of vectors of `x`, and of `y`, in a subset.
        subsets: number of subsets; each is drawn without replacement.
        seed: RNG seed of the subsets.

    Returns:
        The mean over subsets, and its standard error under the assumption that subsets are
        independent. Subsets share vectors, so the error covers the choice of subsets, but not the
        choice of images.

    Raises:
        UserError: the dimensions of the vectors differ; `size` is below 2 or above n or m;
            `subsets` is below 2.
    """
    x, y = validate_pair(x, y)
    check_between("size", size, 2, min(len(x), len(y)))
    check_at_least("subsets", subsets, 2)
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
    """Check that two sets of vectors can be compared, and return them in float64.

    Raises:
        UserError: the shapes are not [n d] and [m d], or a set has fewer than `min_count` vectors.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UserError(f"Give vectors [n d] of equal width d, not {x.shape} and {y.shape}.")
    if min(len(x), len(y)) < min_count:
        raise UserError(
            f"Give at least {min_count} vectors per set, not {len(x)} and {len(y)} vectors."
        )
    return x.astype(np.float64), y.astype(np.float64)


def _gaussian(
    vectors: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "r d"]]:
    """Return the mean, and a matrix R of at most d rows such that R^T R is the covariance."""
    mean = vectors.mean(axis=0)
    root = np.linalg.qr(vectors - mean, mode="r")
    return mean, root / np.sqrt(len(vectors) - 1)


def _mmd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"]) -> float:
    """Return the unbiased squared MMD.

    The value is the mean kernel within x, plus that within y, minus twice that between x and y.
    """
    within = [_cubic_kernel(same, same) for same in (x, y)]
    count = len(x)
    own = sum((values.sum() - np.trace(values)) / (count * (count - 1)) for values in within)
    return float(own - 2 * _cubic_kernel(x, y).mean())


def _cubic_kernel(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3
