"""Tests of finding overfitting in the losses of documents over time."""

import numpy as np
import pytest

from oneflow_jax.training import overfitting

RNG = np.random.default_rng(0)
SPREAD = RNG.uniform(0.5, 1.5, 32)


def make_history(heldout, training=None, noise=0.0, term="text"):
    """Return evaluations every 50 steps; documents have different losses with the given means."""
    training = training or list(np.linspace(2.0, 0.5, len(heldout)))
    return [
        (
            50 * (n + 1),
            {
                f"{term}_heldout": list(SPREAD * (a + noise * RNG.normal(size=32))),
                f"{term}_train": list(SPREAD * b),
                overfitting.TOTAL: [a],
            },
        )
        for n, (a, b) in enumerate(zip(heldout, training, strict=True))
    ]


def test_a_rising_heldout_loss_is_found():
    (found,) = overfitting.find(make_history([2.0, 1.0, 1.1, 1.2]))
    assert (found.term, found.best_step, found.since) == ("text", 100, 150)
    assert found.rise == pytest.approx(0.2)
    assert found.low > 0.1
    assert found.has_better_checkpoint
    (sentence,) = overfitting.describe([found])
    assert sentence.startswith(
        "Text is overfitted since step 150: the held-out loss was lowest at step 100, and has "
        "risen by 20% since"
    )


@pytest.mark.parametrize(
    ("heldout", "training", "noise"),
    [
        ([2.0, 1.5, 1.0], None, 0.0),
        ([2.0, 1.0, 1.01], None, 0.0),
        ([2.0, 1.0, 1.2], [1.0, 1.0, 1.1], 0.0),
        ([2.0, 1.0, 1.03], None, 0.8),
        ([1.0], None, 0.0),
    ],
    ids=["falls", "too small a rise", "training loss rises too", "noise", "one evaluation"],
)
def test_no_overfitting_is_found(heldout, training, noise):
    assert overfitting.find(make_history(heldout, training, noise)) == []
    assert overfitting.describe([]) == []


def test_rises_by_chance_are_found_rarely():
    found = [overfitting.find(make_history([1.0] * 4, noise=0.3)) for _ in range(50)]
    assert sum(map(bool, found)) <= 15  # The lowest of several losses is low by chance.


def test_the_newest_checkpoint_may_be_the_best_although_text_is_overfitted():
    history = make_history([2.0, 1.0, 1.2])
    for step, losses in history:
        losses[overfitting.TOTAL] = [10.0 / step]
    (found,) = overfitting.find(history)
    assert not found.has_better_checkpoint


def test_documents_without_a_loss_and_evaluations_of_other_documents_are_left_out():
    history = make_history([2.0, 1.0, 1.2])
    for _, losses in history:
        losses["text_heldout"][0] = None
    (found,) = overfitting.find(history)
    assert found.best_step == 100
    fewer = [(step, {k: v[:8] for k, v in losses.items()}) for step, losses in history[:2]]
    assert overfitting.find([*fewer, history[2]]) == []
