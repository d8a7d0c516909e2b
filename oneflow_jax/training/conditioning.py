"""Conditioning gain: how much a model uses text for images, and images for text.

    gain = 1 - loss(images | text shown) / loss(images | text hidden)

Both losses are those of held-out documents at t = 0, with the same noise. The text is hidden as in
conditioning dropout. A gain of 0 means that the images do not depend on the text. The gain of text
from images is defined in the same way.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from oneflow_jax.shapes import Float

NUM_RESAMPLES = 1_000
"""Number of bootstrap resamples of the rows."""

_NOUNS = {
    "image": ("Images", "the text", "text_to_image"),
    "text": ("Texts", "the images", "image_to_text"),
}
"""For each loss term: what is generated, what it is conditioned on, and the task."""


@dataclasses.dataclass(frozen=True)
class Gain:
    """A conditioning gain with its 95 % bootstrap interval, as fractions of the loss."""

    value: float
    low: float
    high: float


def measure_gain(
    shown: Float[np.ndarray, "B"], hidden: Float[np.ndarray, "B"], seed: int
) -> Gain | None:
    """Return the gain of a batch, or None if the condition makes no difference to the last bit.

    In the second case the paradigm cannot hide this condition, or the model is untrained.

    Args:
        shown: loss total of each row with the condition.
        hidden: loss total of each row without the condition.
        seed: RNG seed of the bootstrap over rows.
    """
    if np.array_equal(shown, hidden) or not hidden.sum():
        return None
    picks = np.random.default_rng(seed).integers(len(shown), size=(NUM_RESAMPLES, len(shown)))
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = 1 - shown[picks].sum(1) / hidden[picks].sum(1)
    low, high = np.nanquantile(gains, [0.025, 0.975])
    return Gain(float(1 - shown.sum() / hidden.sum()), float(low), float(high))


def metric_names(term: str) -> tuple[str, str, str]:
    """Return the names of the gain of a loss term, and of the ends of its interval."""
    name = f"eval/conditioning_gain_{term}"
    return name, f"{name}_low", f"{name}_high"


def describe(metrics: Mapping[str, float]) -> list[str]:
    """Return one sentence for each gain in the metrics: what the model uses, or does not use yet.

    A gain counts if its whole interval is above 0.
    """
    sentences = []
    for term, (generated, condition, task) in _NOUNS.items():
        names = metric_names(term)
        if names[0] not in metrics:
            continue
        gain = Gain(*(metrics[name] for name in names))
        interval = f"95 % interval {gain.low:.1%} to {gain.high:.1%}"
        if gain.low > 0:
            sentences.append(
                f"{generated} depend on {condition}: with {condition}, their held-out loss at "
                f"t = 0 is {gain.value:.1%} lower ({interval})."
            )
        else:
            sentences.append(
                f"{generated} do not depend on {condition} yet: with {condition}, their held-out "
                f"loss at t = 0 is {gain.value:.1%} lower ({interval}). Train longer, on more "
                f"documents, or with a larger paradigm.tasks.{task}."
            )
    return sentences
