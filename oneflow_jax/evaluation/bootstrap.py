"""Bootstrap intervals: how much a metric depends on the choice of documents."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from oneflow_jax.errors import check_at_least

Statistic = Callable[[Int[np.ndarray, "n"]], "float | Float[np.ndarray, 'f']"]
"""A function that maps document indices, which may repeat, to one or several metrics."""


def resample(
    statistic: Statistic, count: int, seed: int = 0, num_resamples: int = 1000
) -> Float[np.ndarray, "draws *f"]:
    """Return values of a statistic on bootstrap resamples of `count` documents.

    Percentiles of the values are the ends of a bootstrap interval (Efron, Bootstrap Methods, 1979).
    The interval covers the choice of documents. It covers neither the training seed nor errors of
    the classifier. With fewer than about 30 documents the interval is too narrow. If all documents
    have the same outcome, the width of the interval is 0.

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

    Use this function instead of `resample` for metrics that repeated documents would bias, such as
    distances between image sets. Each half is drawn without replacement. The values vary about as
    much as the metric of n documents varies between sets of n documents (delete-d jackknife of Shao
    and Wu, 1989, with d = n / 2). The metric of half the documents may be biased. So all values are
    shifted by a constant, such that their mean is the metric of all documents.

    Raises:
        UserError: `count` or `num_resamples` is below 2.
    """
    check_at_least("count", count, 2)
    check_at_least("num_resamples", num_resamples, 2)
    rng = np.random.default_rng(seed)
    half_values = [statistic(rng.permutation(count)[: count // 2]) for _ in range(num_resamples)]
    values = np.asarray(half_values)
    return values - values.mean(axis=0) + np.asarray(statistic(np.arange(count)))
