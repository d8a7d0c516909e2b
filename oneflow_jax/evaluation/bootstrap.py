"""Bootstrap intervals of metrics: how much they depend on the choice of documents."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from oneflow_jax.errors import check_at_least

Statistic = Callable[[Int[np.ndarray, "n"]], "float | Float[np.ndarray, 'f']"]
"""A function from document indices, possibly with repetitions, to one or several metrics."""


def resample(
    statistic: Statistic, count: int, seed: int = 0, num_resamples: int = 1000
) -> Float[np.ndarray, "draws *f"]:
    """Return values of a statistic on bootstrap resamples of `count` documents.

    Percentiles of the values are the ends of a bootstrap interval (Efron, Bootstrap Methods, 1979).
    The interval covers the choice of documents, but neither other training seeds nor errors of the
    classifier. With fewer than about 30 documents it is too narrow. If the outcome is the same for
    all documents, for example 1 of 1, its width is 0.

    Args:
        statistic: function of document indices in the range 0 to `count` - 1.
        count: number of documents.
        seed: RNG seed of the resamples.
        num_resamples: number of resamples.

    Raises:
        UserError: `count` is below 1 or `num_resamples` is below 2.
    """
    check_at_least("count", count, 1)
    check_at_least("num_resamples", num_resamples, 2)
    rng = np.random.default_rng(seed)
    return np.asarray([statistic(rng.integers(0, count, count)) for _ in range(num_resamples)])


def half_sample(
    statistic: Statistic, count: int, seed: int = 0, num_resamples: int = 100
) -> Float[np.ndarray, "draws *f"]:
    """Return values of a statistic on random halves of `count` documents.

    Use it instead of `resample` for metrics that repeated documents would bias, such as distances
    of image sets. Each half is drawn without replacement. The values vary about as much as the
    metric of all documents does between sets of documents (delete-d jackknife of Shao and Wu, 1989,
    with d = n / 2). Their mean is shifted to the value for all documents, since the metric of half
    the documents may be biased.

    Raises:
        UserError: `count` or `num_resamples` is below 2.
    """
    check_at_least("count", count, 2)
    check_at_least("num_resamples", num_resamples, 2)
    rng = np.random.default_rng(seed)
    every = [statistic(rng.permutation(count)[: count // 2]) for _ in range(num_resamples)]
    values = np.asarray(every)
    return values - values.mean(axis=0) + np.asarray(statistic(np.arange(count)))
