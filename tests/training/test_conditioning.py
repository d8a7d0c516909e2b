"""Tests of the conditioning gain and of the sentences about it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import evaluate
from oneflow_jax.flows import tasks
from oneflow_jax.training import conditioning, eval_loss
from tests import runs


def test_gain_is_the_fraction_of_the_loss_that_the_condition_removes():
    hidden = np.full(16, 2.0)
    gain = conditioning.measure_gain(0.75 * hidden, hidden, seed=0)
    assert (gain.value, gain.low, gain.high) == (0.25, 0.25, 0.25)


def test_interval_holds_the_true_gain_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        hidden = rng.uniform(1, 3, 32)
        shown = hidden * rng.normal(0.9, 0.2, 32)
        gain = conditioning.measure_gain(shown, hidden, seed)
        covered.append(gain.low <= 0.1 <= gain.high)
    assert 0.85 < np.mean(covered) <= 0.99


def test_no_gain_is_reported_where_the_condition_makes_no_difference():
    same = np.arange(4.0)
    assert conditioning.measure_gain(same, same.copy(), seed=0) is None
    assert conditioning.measure_gain(same, np.zeros(4), seed=0) is None


def make_metrics(term, **gains):
    """Return metrics with the ends of the interval 0.1 below and above each gain."""
    return {
        name: value
        for split, gain in gains.items()
        for name, value in zip(
            conditioning.metric_names(term, split), (gain, gain - 0.1, gain + 0.1), strict=True
        )
    }


@pytest.mark.parametrize(
    ("train", "heldout", "beginning"),
    [
        (0.3, 0.2, "Images depend on texts, also in held-out documents. Texts lower the loss at "
         "t = 0 by 30.0% for training documents (95 % interval 20.0% to 40.0%), 20.0% for "),
        (0.05, 0.2, "Images hardly depend on texts yet. Train longer, or with a larger "
         "paradigm.tasks.text_to_image."),
        (0.3, 0.05, "Images depend on texts in training documents only: they are learned by heart"),
        (0.3, -0.2, "Images depend on texts in training documents only: they are learned by heart"),
    ],
)  # fmt: skip
def test_sentences_say_what_the_model_uses(train, heldout, beginning):
    (sentence,) = conditioning.describe(make_metrics("image", train=train, heldout=heldout))
    assert sentence.startswith(beginning)


def test_sentences_need_the_gains_of_both_splits():
    assert conditioning.describe(make_metrics("text", heldout=0.2)) == []
    both = make_metrics("text", train=0.3, heldout=0.2)
    assert conditioning.describe(both)[0].startswith("Texts depend on images, also in")
    assert set(both) <= set(conditioning.all_metric_names())


@pytest.mark.parametrize("task", ["text_to_image", "image_to_text"])
def test_a_hidden_condition_has_no_effect_and_a_shown_one_has(task):
    """Change the condition of held-out documents: only the losses with it shown change."""
    system, folder = runs.trained_run()
    canvas = next(iter(system._batches("heldout", num_workers=0, cache_size=0)))
    condition = canvas.is_text if task == "text_to_image" else canvas.is_image
    term = "image" if task == "text_to_image" else "text"
    condition &= canvas.to_generate
    other = canvas.replace(
        ids=jnp.where(condition & canvas.is_text, jnp.roll(canvas.ids, 1, axis=0), canvas.ids),
        latents=jnp.where(condition[..., None], canvas.latents + 1.0, canvas.latents),
    )
    paradigm = dataclasses.replace(
        system.paradigm.at_shared_time, task_mixture=tasks.single_task(task)
    )
    # After few steps, the heads are nearly zero, which would hide a dependence.
    params = jax.tree.map(lambda x: x + 0.05, evaluate.load_ema_params(system, folder))

    def losses(rows, drop):
        terms = eval_loss._conditional_rows(
            params,
            jax.random.key(0),
            jnp.float32(drop),
            rows,
            model=system.model,
            paradigm=paradigm,
        )
        return np.asarray(terms[term].total)

    np.testing.assert_array_equal(losses(canvas, 1.0), losses(other, 1.0))
    assert np.all(losses(canvas, 0.0) != losses(other, 0.0))
