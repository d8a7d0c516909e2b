"""How far figures would go up and down with other documents: intervals by resampling."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from oneflow_jax.errors import UserError

Statistic = Callable[[Int[np.ndarray, "n"]], "float | Float[np.ndarray, 'f']"]
"""A figure, or several, of the documents with these numbers, some of them more than once."""


def resample(
    statistic: Statistic, count: int, seed: int = 0, num_resamples: int = 1000
) -> Float[np.ndarray, "draws *f"]:
    """Values for `count` documents drawn with repetition, again and again.

    Their percentiles are the ends of the interval of Efron, Bootstrap Methods (1979). It tells how
    much the choice of documents matters: not other seeds of training, nor errors of the judge. Of
    fewer than about 30 documents it is too narrow, and of a figure that all documents share, as 1
    of 1, it has no width at all.

    Args:
        statistic: gets the numbers of the documents, 0 to `count` - 1.
        count: documents.
        seed: of the draws.
        num_resamples: how many.

    Raises:
        UserError: nothing to draw from, or too few draws.
    """
    if count < 1 or num_resamples < 2:
        raise UserError(
            f"count={count}, num_resamples={num_resamples}: give a document and two draws or more."
        )
    rng = np.random.default_rng(seed)
    return np.asarray([statistic(rng.integers(0, count, count)) for _ in range(num_resamples)])


def half_sample(
    statistic: Statistic, count: int, seed: int = 0, num_resamples: int = 100
) -> Float[np.ndarray, "draws *f"]:
    """The same for figures that repetition would bias, as distances of sets are.

    Values for halves of the documents, none twice, vary about as much as those of all do between
    sets of documents (the delete-d jackknife of Shao and Wu, 1989, with d = n / 2). Their mean is
    moved to the value for all, as a half's own may lie elsewhere.

    Raises:
        UserError: fewer than 2 documents or draws.
    """
    if count < 2 or num_resamples < 2:
        raise UserError(
            f"count={count}, num_resamples={num_resamples}: give 2 documents and draws or more."
        )
    rng = np.random.default_rng(seed)
    every = [statistic(rng.permutation(count)[: count // 2]) for _ in range(num_resamples)]
    values = np.asarray(every)
    return values - values.mean(axis=0) + np.asarray(statistic(np.arange(count)))
