"""Conditioning gain: how much a model uses text for images, and images for text.

    gain = 1 - loss(images | text shown) / loss(images | text hidden)

Both losses are those of a batch of documents at t = 0, with the same noise. The text is hidden as
in conditioning dropout. A gain of 0 means that the images do not depend on the text. The gain of
text from images is defined in the same way. Gains are measured on training documents and on
held-out documents.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from oneflow_jax.shapes import Float

NUM_RESAMPLES = 1_000
"""Number of bootstrap resamples of the rows."""

SPLITS = ("train", "heldout")
"""Splits of the data on which gains are measured."""

_SPLIT_NAMES = {"train": "training", "heldout": "held-out"}
"""What sentences call the documents of a split."""

MIN_GAIN = 0.02
"""Smaller gains are reported as none, also if they are certain."""

_NOUNS = {
    "image": ("Images", "texts", "text_to_image"),
    "text": ("Texts", "images", "image_to_text"),
}
"""For each loss term: what is generated, what it is conditioned on, and the task."""


@dataclasses.dataclass(frozen=True)
class Gain:
    """A conditioning gain with its 95 % bootstrap interval, as fractions of the loss."""

    value: float
    low: float
    high: float

    @property
    def is_relevant(self) -> bool:
        """Whether the gain is large enough to matter, and is not noise."""
        return self.value >= MIN_GAIN and self.low > 0


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


def metric_names(term: str, split: str) -> tuple[str, str, str]:
    """Return the names of the gain of a loss term on a split, and of the ends of its interval."""
    name = f"eval/conditioning_gain_{term}_{split}"
    return name, f"{name}_low", f"{name}_high"


def all_metric_names() -> list[str]:
    """Return the names of all gains and of the ends of their intervals."""
    return [name for term in _NOUNS for split in SPLITS for name in metric_names(term, split)]


def describe(metrics: Mapping[str, float]) -> list[str]:
    """Return one sentence for each loss term: what the model uses, or does not use yet.

    A gain counts if it is at least `MIN_GAIN` and its whole interval is above 0. If only the gain
    of training documents counts, the model has learned these documents by heart, or the held-out
    documents have names that are not in the training data, as in the data sets of emoji.
    """
    sentences = []
    for term, (generated, condition, task) in _NOUNS.items():
        gains = {
            split: Gain(*(metrics[name] for name in metric_names(term, split)))
            for split in SPLITS
            if metric_names(term, split)[0] in metrics
        }
        if len(gains) < len(SPLITS):
            continue
        figures = ", ".join(
            f"{gain.value:.1%} for {_SPLIT_NAMES[split]} documents (95 % interval {gain.low:.1%} "
            f"to {gain.high:.1%})"
            for split, gain in gains.items()
        )
        if not gains["train"].is_relevant:
            sentence = (
                f"{generated} hardly depend on {condition} yet. Train longer, or with a larger "
                f"paradigm.tasks.{task}."
            )
        elif gains["heldout"].is_relevant:
            sentence = f"{generated} depend on {condition}, also in held-out documents."
        else:
            sentence = (
                f"{generated} depend on {condition} in training documents only: they are learned "
                "by heart, or the held-out documents name other things."
            )
        sentences.append(
            f"{sentence} {condition.capitalize()} lower the loss at t = 0 by {figures}."
        )
    return sentences
