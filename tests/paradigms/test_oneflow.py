"""Tests of OneFlow's corruption and loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.flows import tasks, time_samplers
from tests import tiny
from tests.paradigms.oracle import SEED, TABLE, row_keys

OBJECTIVES = ("cross_entropy", "likelihood", "velocity", "naive")
IMAGES = ("x1", "velocity")


def corrupt_rows(paradigm, canvas, seed=SEED):
    u = time_samplers.spread_over_documents(
        jax.random.uniform(jax.random.key(3), canvas.ids.shape[:1]), canvas.segment
    )
    corrupt = jax.vmap(functools.partial(paradigm.corrupt, table=TABLE))
    return corrupt(row_keys(seed, canvas.ids.shape[0]), u, canvas)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_oracle_has_zero_loss(objective, image):
    paradigm = tiny.paradigm(objective, image)
    _, targets = corrupt_rows(paradigm, tiny.packed_batch())
    outputs = {
        "text_logits": 1e4 * jax.nn.one_hot(tiny.packed_batch().ids, tiny.VOCAB),
        "text_velocity": targets.x1.embeds - targets.x0.embeds,
        "image": tiny.packed_batch().latents
        if image == "x1"
        else tiny.packed_batch().latents - targets.x0.latents,
    }
    sums = jax.vmap(paradigm.loss)(outputs, targets)
    for term in ("text", "image"):
        assert sums[term].count.sum() > 10
        np.testing.assert_allclose(sums[term].total, 0, atol=1e-6)
    # The clean content of the targets equals that of the input row.
    rows = paradigm.objective.prepare_table(TABLE).embedding
    np.testing.assert_array_equal(targets.x1.embeds, rows[tiny.packed_batch().ids])
    np.testing.assert_array_equal(targets.x1.latents, tiny.packed_batch().latents)
    np.testing.assert_array_equal(targets.ids, tiny.packed_batch().ids)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_time_equals_the_noise_level(objective):
    """Check that the network's time equals the noise level of each slot."""
    paradigm = tiny.paradigm(objective, time_sampler=time_samplers.LogitNormalTimeSampler(0.3, 1.2))
    view, targets = corrupt_rows(paradigm, tiny.packed_batch())
    states = {"text": view.embeds, "image": view.latents}
    for kind, x_0, x_1 in (
        ("text", targets.x0.embeds, targets.x1.embeds),
        ("image", targets.x0.latents, targets.x1.latents),
    ):
        line = x_1 - x_0
        length = jnp.sum(line**2, -1)
        applied = jnp.sum((states[kind] - x_0) * line, -1) / jnp.where(length > 0, length, 1)
        at = (tiny.packed_batch().is_text if kind == "text" else tiny.packed_batch().is_image) & (
            length > 0
        )
        np.testing.assert_allclose(applied[at], view.time[at], atol=1e-5)
        np.testing.assert_array_equal(view.time, targets.time)


def test_given_slots_are_clean_and_not_scored():
    paradigm = tiny.paradigm()
    canvas = tiny.packed_batch()
    view, targets = corrupt_rows(paradigm, canvas)
    scored = np.asarray(targets.text_scored | targets.image_scored)
    bos = np.asarray(canvas.position[..., 0] == 0) & np.asarray(canvas.is_text)
    assert bos.sum() > 8
    assert not scored[bos | ~np.asarray(canvas.to_generate)].any()
    clean = np.asarray(view.time == 1)
    rows = paradigm.objective.prepare_table(TABLE).embedding[canvas.ids]
    assert clean[bos].all()
    np.testing.assert_array_equal(view.embeds[clean], rows[clean])
    np.testing.assert_array_equal(view.latents[clean], canvas.latents[clean])
    assert not np.any(np.asarray(targets.text_scored & ~canvas.is_text))
    assert not np.any(np.asarray(targets.image_scored & ~canvas.is_image))


def test_training_times_follow_the_time_sampler():
    joint = tasks.TaskMixture((1.0, *(0.0,) * 6), 0.0)
    canvas = jax.tree.map(lambda x: x[0], tiny.packed_batch())
    u = jnp.full(canvas.ids.shape, 0.3)
    for clock, t in (
        (time_samplers.PowerTimeSampler(), 0.3),
        (time_samplers.PowerTimeSampler(3.0), 0.027),
    ):
        view, _ = tiny.paradigm(task_mixture=joint, time_sampler=clock).corrupt(
            jax.random.key(0), u, canvas, TABLE
        )
        np.testing.assert_allclose(view.time[canvas.to_generate], t, rtol=1e-5)


def test_counts_are_those_of_the_clean_canvas():
    canvas = jax.tree.map(lambda x: x[0], tiny.packed_batch())
    counts = tiny.paradigm().counts(canvas)
    kind, fixed = np.asarray(canvas.modality), np.asarray(canvas.is_given)
    assert counts["text"] == np.sum((kind == 1) & ~fixed)
    assert counts["image"] == np.sum(kind == 2)
