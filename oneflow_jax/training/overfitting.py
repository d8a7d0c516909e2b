"""Overfitting: the loss of held-out documents rises while that of training documents falls.

Both losses are measured in the same way, at the same times and with the same noise
(`document_losses`). A rise counts if it is at least `MIN_RISE` and its 95 % bootstrap interval over
documents is above 0. It is measured from the evaluation with the lowest held-out loss.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from oneflow_jax.shapes import Float

MIN_RISE = 0.02
"""Smaller rises, relative to the lowest held-out loss, are not reported."""

NUM_RESAMPLES = 1_000
"""Number of bootstrap resamples of the documents."""

TERMS = ("text", "image")
"""Loss terms for which overfitting is reported."""

TOTAL = "total_heldout"
"""Name of the held-out loss that decides which checkpoint is the best one: a list of one value."""

Evaluation = tuple[int, Mapping[str, Sequence[float | None]]]
"""A step, and the loss of each document by "<term>_<split>" (`document_losses.DocumentLosses`)."""


@dataclasses.dataclass(frozen=True)
class Overfitting:
    """A significant rise of the held-out loss of one term.

    Attributes:
        term: the loss term, "text" or "image".
        best_step: step with the lowest held-out loss.
        since: step of the evaluation that follows `best_step`.
        rise: rise of the held-out loss since `best_step`, relative to its lowest value.
        low: lower end of the 95 % interval of `rise`.
        high: upper end of this interval.
        has_better_checkpoint: whether the held-out loss of all terms together also was lower at an
            earlier evaluation, so that the best checkpoint is not the newest one.
    """

    term: str
    best_step: int
    since: int
    rise: float
    low: float
    high: float
    has_better_checkpoint: bool = True


def find(history: Sequence[Evaluation], seed: int = 0) -> list[Overfitting]:
    """Return the terms that are overfitted at the last evaluation of `history`.

    If the data has changed, evaluations of another number of documents are left out.
    """
    found = [_find_term(history, term, seed) for term in TERMS]
    return [one for one in found if one is not None]


def _find_term(history: Sequence[Evaluation], term: str, seed: int) -> Overfitting | None:
    steps, heldout, training = [], [], []
    for step, losses in history:
        if f"{term}_heldout" in losses and f"{term}_train" in losses:
            steps.append(step)
            heldout.append(np.array(losses[f"{term}_heldout"], float))
            training.append(np.array(losses[f"{term}_train"], float))
    same = [n for n, losses in enumerate(heldout) if losses.shape == heldout[-1].shape]
    if len(same) < 2:
        return None
    means = [np.nanmean(heldout[n]) for n in same]
    best, last = same[int(np.argmin(means))], same[-1]
    if best == last or np.nanmean(training[last]) >= np.nanmean(training[best]):
        return None
    rise, low, high = _measure_rise(heldout[best], heldout[last], seed)
    if rise < MIN_RISE or low <= 0:
        return None
    totals = [losses[TOTAL][0] for _, losses in history if TOTAL in losses]
    is_newest_best = bool(totals) and totals[-1] <= min(totals)
    since = steps[same[same.index(best) + 1]]
    return Overfitting(term, steps[best], since, rise, low, high, not is_newest_best)


def _measure_rise(
    before: Float[np.ndarray, "n"], after: Float[np.ndarray, "n"], seed: int
) -> tuple[float, float, float]:
    """Return the relative rise of the mean loss, and its bootstrap interval over documents."""
    known = np.isfinite(before) & np.isfinite(after)
    before, after = before[known], after[known]
    picks = np.random.default_rng(seed).integers(len(before), size=(NUM_RESAMPLES, len(before)))
    rises = after[picks].sum(1) / before[picks].sum(1) - 1
    low, high = np.quantile(rises, [0.025, 0.975])
    return float(after.sum() / before.sum() - 1), float(low), float(high)


def describe(found: Sequence[Overfitting]) -> list[str]:
    """Return one sentence for each overfitted term."""
    return [
        f"{one.term.capitalize()} is overfitted since step {one.since}: the held-out loss was "
        f"lowest at step {one.best_step}, and has risen by {one.rise:.0%} since (95 % interval "
        f"{one.low:.0%} to {one.high:.0%}), while the loss of training documents fell."
        for one in found
    ]
