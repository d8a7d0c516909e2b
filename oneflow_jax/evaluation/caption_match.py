"""Test of a data set: are the images of documents with similar captions similar?

For each document, the test takes the document with the most similar caption, and ranks all other
documents by the distance of their image to that of the document. The match is the mean fraction of
documents whose image is further away than that of the similar caption: 1 if similar captions always
have the most similar images, and 0.5 on average if captions and images do not belong together.

The test needs no model. It compares pixels, so it can miss a match of captions and images that is
not visible in colors and shapes, or that concerns words which no two captions share.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

MIN_SIMILARITY = 0.1
"""Documents whose most similar caption is less similar than this are left out."""

MIN_DOCUMENTS = 20
"""Minimum number of documents with a similar caption; with fewer, the test has no result."""

NUM_PERMUTATIONS = 200
"""Number of random assignments of captions to images, for the range of the match by chance."""


@dataclasses.dataclass(frozen=True)
class CaptionMatch:
    """How well captions and images of a data set belong together.

    Attributes:
        value: mean fraction of documents whose image is further away, 0 to 1.
        chance: 97.5 % quantile of the value if captions are assigned to images at random.
    """

    value: float
    chance: float


def measure(
    captions: Sequence[str], features: Float[np.ndarray, "n f"], seed: int = 0
) -> CaptionMatch | None:
    """Measure the match; None if too few captions share words.

    Args:
        captions: caption of each document.
        features: features of the image of each document, such as `nearest_image.features`.
        seed: RNG seed of the random assignments.
    """
    similarity = _similarity(captions)
    np.fill_diagonal(similarity, -1.0)
    best = similarity.max(axis=1)
    rows, columns = np.nonzero(
        (similarity >= best[:, None] - 1e-6) & (best[:, None] >= MIN_SIMILARITY)
    )
    kept = np.unique(rows)
    if len(kept) < MIN_DOCUMENTS:
        return None
    further = _fraction_further(features)
    weights = 1 / np.bincount(rows, minlength=len(captions))[rows] / len(kept)

    def match(order: np.ndarray) -> float:
        return float(np.sum(weights * further[order[rows], order[columns]]))

    rng = np.random.default_rng(seed)
    random = [match(rng.permutation(len(captions))) for _ in range(NUM_PERMUTATIONS)]
    return CaptionMatch(match(np.arange(len(captions))), float(np.quantile(random, 0.975)))


def _similarity(captions: Sequence[str]) -> Float[np.ndarray, "n n"]:
    """Return the cosine similarities of captions as vectors of word counts, rare words weighted."""
    words = [re.findall(r"\w+", caption.lower()) for caption in captions]
    numbers = {word: n for n, word in enumerate(sorted({w for one in words for w in one}))}
    counts = np.zeros((len(captions), len(numbers)), np.float32)
    for index, one in enumerate(words):
        for word in one:
            counts[index, numbers[word]] += 1
    vectors = counts * np.log(len(captions) / np.maximum(1, (counts > 0).sum(axis=0)))
    vectors /= np.maximum(1e-6, np.linalg.norm(vectors, axis=1, keepdims=True))
    return vectors @ vectors.T


def _fraction_further(features: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n n"]:
    """Return for each pair the fraction of images that are further from the first image.

    Images at equal distance, such as copies, count half.
    """
    squares = np.square(features).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * features @ features.T
    np.fill_diagonal(distances, np.inf)
    result = np.empty_like(distances)
    for index, row in enumerate(distances):
        ordered = np.sort(row[np.isfinite(row)])
        below = np.searchsorted(ordered, row, "left"), np.searchsorted(ordered, row, "right")
        result[index] = 1 - (below[0] + below[1] - 1) / 2 / max(1, len(ordered) - 1)
    return result
