"""Do made pictures cover the real ones, and no more; and are they copies of those of training?

On vectors of features, as `pretrained.efficientnet` gives them; distances are Euclidean. Figures
depend on the network and on the numbers of pictures: compare only what has the same.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial import distance

from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import fid_kid

NUM_NEIGHBORS = 3
"""As in the paper of improved precision and recall."""

PERCENTILE = 5.0
"""One held-out picture in twenty is as close to training as that; it takes 20 or more to tell."""


class PrecisionRecall(NamedTuple):
    """Shares, 0 to 1; both about the same, and far above 0, for two samples of one source.

    Attributes:
        precision: of made pictures among the real ones: low if they are bad.
        recall: of real pictures among the made ones: low if they are always the same.
    """

    precision: float
    recall: float


class MemorizationResult(NamedTuple):
    """How much closer to training than held-out real pictures the made ones are.

    Attributes:
        ratio: median distance of made pictures to their nearest of training, by that of held-out
            ones: 1 if they are as new as real ones, 0 if they are copies; above 1 also if bad.
        close: share of made pictures that are closer than the percentile of held-out ones: about
            that percentile if they are as new, 1 if all are copies.
    """

    ratio: float
    close: float


def precision_recall(
    real: Float[np.ndarray, "n d"],
    generated: Float[np.ndarray, "m d"],
    neighbors: int = NUM_NEIGHBORS,
) -> PrecisionRecall:
    """Improved precision and recall: Kynkäänniemi et al. (2019), eq. 1 and 2.

    A vector is among a set if it is in the ball around one of the set's vectors that reaches to
    that one's k-th nearest neighbor in the set, itself not counted.

    Raises:
        UserError: vectors of different widths, or no more than `neighbors` of them.
    """
    real, generated = fid_kid.validate_pair(real, generated, min_count=neighbors + 1)
    if neighbors < 1:
        raise UserError(f"neighbors={neighbors}: give 1 or more.")
    between = distance.cdist(real, generated)
    in_real = between <= _knn_radius(real, neighbors)[:, None]
    in_made = between <= _knn_radius(generated, neighbors)[None]
    return PrecisionRecall(float(in_real.any(axis=0).mean()), float(in_made.any(axis=1).mean()))


def measure_memorization(
    generated: Float[np.ndarray, "n d"],
    training: Float[np.ndarray, "m d"],
    heldout: Float[np.ndarray, "k d"],
    percentile: float = PERCENTILE,
) -> MemorizationResult:
    """Whether made pictures are nearer to those of training than new real pictures are.

    Args:
        generated: pictures of the model.
        training: pictures that it was trained on, all of them.
        heldout: real pictures of the same source that it was not trained on.
        percentile: of held-out distances, below which a picture counts as too close.

    Raises:
        UserError: vectors of different widths or none; or half of `heldout` is in training.
    """
    generated, training = fid_kid.validate_pair(generated, training, min_count=1)
    heldout, _ = fid_kid.validate_pair(heldout, training, min_count=1)
    far, usual = (distance.cdist(some, training).min(axis=1) for some in (generated, heldout))
    if not np.median(usual):
        raise UserError("heldout: half of it or more is in training; give pictures that are not.")
    close = far < np.percentile(usual, percentile)
    return MemorizationResult(float(np.median(far) / np.median(usual)), float(close.mean()))


def _knn_radius(vectors: Float[np.ndarray, "n d"], neighbors: int) -> Float[np.ndarray, "n"]:
    """Distance of each vector to its k-th nearest neighbor among the others."""
    # The nearest of all is the vector itself.
    apart = distance.cdist(vectors, vectors)
    return np.partition(apart, neighbors, axis=1)[:, neighbors]
