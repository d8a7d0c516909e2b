"""Precision and recall of generated images, and a test of memorized training images.

Inputs are feature vectors, for example from `pretrained.efficientnet`; distances are Euclidean. The
metrics depend on the network and on the number of images. So compare only values of the same
network and equal numbers of images.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from oneflow_jax.errors import UserError, check_at_least
from oneflow_jax.evaluation import fid_kid

NUM_NEIGHBORS = 3
"""Number k of nearest neighbors, as in the paper on improved precision and recall."""

PERCENTILE = 5.0
"""Percentile of held-out distances below which a generated image counts as memorized.

By definition, 5 % of held-out images are that close to a training image. An estimate of the
percentile needs at least 20 held-out images.
"""


class PrecisionRecall(NamedTuple):
    """Improved precision and recall, 0 to 1.

    For two samples of one distribution, precision and recall are about equal, and far above 0.

    Attributes:
        precision: fraction of generated images that lie within the real set; low for bad images.
        recall: fraction of real images that lie within the generated set; low for images without
            variety.
    """

    precision: float
    recall: float


class MemorizationResult(NamedTuple):
    """Distances of generated images to training images, relative to held-out real images.

    Attributes:
        nn_distance_ratio: median distance from generated images to the nearest training image,
            divided by the same median of held-out images. It is about 1 if generated images are as
            new as real images, and 0 if they are copies. Bad images can have a ratio above 1.
        memorization_rate: fraction of generated images whose distance to the nearest training image
            is below the given percentile of this distance for held-out images. The rate is about
            that percentile, 0.05, if generated images are as new as held-out ones, and 1 if all are
            copies.
    """

    nn_distance_ratio: float
    memorization_rate: float


def precision_recall(
    real: Float[np.ndarray, "n d"],
    generated: Float[np.ndarray, "m d"],
    neighbors: int = NUM_NEIGHBORS,
) -> PrecisionRecall:
    """Compute improved precision and recall: Kynkäänniemi et al. (2019), eq. 1 and 2.

    Each vector of a set has a ball: its radius is the distance to the vector's k-th nearest
    neighbor in the set, not counting the vector itself. A vector lies within the set if it lies in
    one of these balls.

    Raises:
        UserError: the dimensions of the vectors differ, a set has `neighbors` vectors or fewer, or
            `neighbors` is below 1.
    """
    real, generated = fid_kid.validate_pair(real, generated, min_count=neighbors + 1)
    check_at_least("neighbors", neighbors, 1)
    between = _distances(real, generated)
    in_real = between <= _knn_radius(real, neighbors)[:, None]
    in_made = between <= _knn_radius(generated, neighbors)[None]
    return PrecisionRecall(float(in_real.any(axis=0).mean()), float(in_made.any(axis=1).mean()))


def measure_memorization(
    generated: Float[np.ndarray, "n d"],
    training: Float[np.ndarray, "m d"],
    heldout: Float[np.ndarray, "k d"],
    percentile: float = PERCENTILE,
) -> MemorizationResult:
    """Measure whether generated images are closer to training images than new real images are.

    Args:
        generated: features of generated images.
        training: features of all images that the model was trained on.
        heldout: features of real images that are not in training, but from the same source.
        percentile: percentile of held-out distances below which an image counts as memorized.

    Raises:
        UserError: the dimensions of the vectors differ, a set is empty, or half of `heldout` or
            more is in training.
    """
    generated, training = fid_kid.validate_pair(generated, training, min_count=1)
    heldout, _ = fid_kid.validate_pair(heldout, training, min_count=1)
    far, usual = (nearest_distances(features, training) for features in (generated, heldout))
    if not np.median(usual):
        raise UserError(
            "heldout: at least half of its images are in the training data. Give other images."
        )
    close = far < np.percentile(usual, percentile)
    return MemorizationResult(float(np.median(far) / np.median(usual)), float(close.mean()))


def nearest_distances(
    features: Float[np.ndarray, "n d"], training: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n"]:
    """Return the distance of each vector to the nearest training vector."""
    return _distances(features, training).min(axis=1)


def _knn_radius(vectors: Float[np.ndarray, "n d"], neighbors: int) -> Float[np.ndarray, "n"]:
    """Return the distance of each vector to its k-th nearest neighbor among the others."""
    # Index 0 of the sorted distances is the vector itself.
    apart = _distances(vectors, vectors)
    return np.partition(apart, neighbors, axis=1)[:, neighbors]


def _distances(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    from scipy.spatial import distance  # A slow import, which few evaluations need.

    return distance.cdist(a, b)
