"""OneFlow's corruption and loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.flows import tasks, time_samplers
from tests import tiny
from tests.paradigms.oracle import SEED, TABLE, row_keys

OBJECTIVES = ("endpoint", "velocity", "literal")
IMAGES = ("clean", "velocity")


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
        "text_velocity": targets.clean.embeds - targets.noise.embeds,
        "image": tiny.packed_batch().latents
        if image == "clean"
        else tiny.packed_batch().latents - targets.noise.latents,
    }
    sums = jax.vmap(paradigm.loss)(outputs, targets)
    for term in ("text", "image"):
        assert sums[term].count.sum() > 10
        np.testing.assert_allclose(sums[term].total, 0, atol=1e-6)
    # And the clean row that the targets hold is the row that was given.
    rows = paradigm.objective.table(TABLE).rows
    np.testing.assert_array_equal(targets.clean.embeds, rows[tiny.packed_batch().ids])
    np.testing.assert_array_equal(targets.clean.latents, tiny.packed_batch().latents)
    np.testing.assert_array_equal(targets.ids, tiny.packed_batch().ids)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_clock_matches_noise_level(objective):
    """The time that the network is told is the one that the noise was mixed in by, slot by slot."""
    paradigm = tiny.paradigm(objective, clock=time_samplers.LogitNormalTimeSampler(0.3, 1.2))
    view, targets = corrupt_rows(paradigm, tiny.packed_batch())
    shown = {"text": view.embeds, "image": view.latents}
    for kind, x_0, x_1 in (
        ("text", targets.noise.embeds, targets.clean.embeds),
        ("image", targets.noise.latents, targets.clean.latents),
    ):
        line = x_1 - x_0
        length = jnp.sum(line**2, -1)
        applied = jnp.sum((shown[kind] - x_0) * line, -1) / jnp.where(length > 0, length, 1)
        at = (tiny.packed_batch().is_text if kind == "text" else tiny.packed_batch().is_image) & (
            length > 0
        )
        np.testing.assert_allclose(applied[at], view.clock[at], atol=1e-5)
        np.testing.assert_array_equal(view.clock, targets.clock)


def test_given_slots_are_shown_clean_and_never_scored():
    paradigm = tiny.paradigm()
    canvas = tiny.packed_batch()
    view, targets = corrupt_rows(paradigm, canvas)
    scored = np.asarray(targets.text | targets.image)
    bos = np.asarray(canvas.position[..., 0] == 0) & np.asarray(canvas.is_text)
    assert bos.sum() > 8
    assert not scored[bos | ~np.asarray(canvas.free)].any()
    clean = np.asarray(view.clock == 1)
    rows = paradigm.objective.table(TABLE).rows[canvas.ids]
    assert clean[bos].all()
    np.testing.assert_array_equal(view.embeds[clean], rows[clean])
    np.testing.assert_array_equal(view.latents[clean], canvas.latents[clean])
    assert not np.any(np.asarray(targets.text & ~canvas.is_text))
    assert not np.any(np.asarray(targets.image & ~canvas.is_image))


def test_the_clock_of_training_follows_its_distribution():
    joint = tasks.TaskMixture((1.0, 0.0, 0.0, 0.0, 0.0), 0.0)
    canvas = jax.tree.map(lambda x: x[0], tiny.packed_batch())
    u = jnp.full(canvas.ids.shape, 0.3)
    for clock, t in (
        (time_samplers.PowerTimeSampler(), 0.3),
        (time_samplers.PowerTimeSampler(3.0), 0.027),
    ):
        view, _ = tiny.paradigm(mix=joint, clock=clock).corrupt(jax.random.key(0), u, canvas, TABLE)
        np.testing.assert_allclose(view.clock[canvas.free], t, rtol=1e-5)


def test_counts_are_of_the_clean_canvas():
    canvas = jax.tree.map(lambda x: x[0], tiny.packed_batch())
    counts = tiny.paradigm().counts(canvas)
    kind, fixed = np.asarray(canvas.kind), np.asarray(canvas.fixed)
    assert counts["text"] == np.sum((kind == 1) & ~fixed)
    assert counts["image"] == np.sum(kind == 2)
