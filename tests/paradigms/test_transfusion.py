"""Tests of `transfusion`: corruption and targets; tests/samplers/ has sampling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import AttentionPattern, Modality
from oneflow_jax.data import toy
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.errors import UserError
from oneflow_jax.flows import gaussian, predictions, tasks, time_samplers
from oneflow_jax.paradigms.transfusion import Transfusion
from oneflow_jax.samplers import ode, token_sampling
from oneflow_jax.samplers.base import SamplingPlan
from tests import tiny
from tests.paradigms.oracle import SEED, TABLE, row_keys

TASK_PROBS = {"joint": (1.0, *(0.0,) * 6), "image_to_text": (0.0, 0.0, 1.0, *(0.0,) * 4)}


def paradigm(task="joint"):
    return Transfusion(
        token_space=token_sampling.TokenSpace(
            tiny.VOCAB, (6, 100), vocabs.IMAGE, vocabs.END, (2, 2)
        ),
        image_prediction=predictions.X1Prediction(),
        channels=tiny.CODEC.channels,
        task_mixture=tasks.TaskMixture(TASK_PROBS[task], 0.0),
        time_sampler=time_samplers.PowerTimeSampler(),
        weights=(("text", 1.0), ("image", 5.0)),
    )


@pytest.fixture(scope="module")
def data():
    """Return rows of one interleaved document each."""
    lay = dataclasses.replace(tiny.make_layout(48, 0), has_markers=True)
    rows = [row for row in map(lay.row, toy.Toy(documents=40)) if len(row["modality"]) <= 48]
    return jax.tree.map(jnp.asarray, lay.canvas(rows[:16]))


def corrupt_rows(flow, canvas, seed=SEED):
    u = jnp.broadcast_to(jnp.linspace(0, 0.9, canvas.ids.shape[0])[:, None], canvas.ids.shape)
    corrupt = jax.vmap(lambda k, u, row: flow.corrupt(k, u, row, TABLE))
    return corrupt(row_keys(seed, canvas.ids.shape[0]), u, canvas)


def test_layout_marks_images_and_the_end_of_documents(data):
    kind, ids = np.asarray(data.modality), np.asarray(data.ids)
    for row in range(len(kind)):
        filled = np.flatnonzero(kind[row] != Modality.PAD)
        assert ids[row, filled[-1]] == vocabs.END
        firsts = [
            slot
            for slot in filled
            if kind[row, slot] == Modality.IMAGE
            and data.span[row, slot] != data.span[row, slot - 1]
        ]
        assert firsts
        assert all(ids[row, slot - 1] == vocabs.IMAGE for slot in firsts)


def test_text_is_clean_and_images_are_noisy(data):
    view, targets = corrupt_rows(paradigm(), data)
    text, image = np.asarray(data.is_text), np.asarray(data.is_image)
    np.testing.assert_array_equal(view.time[text], 1.0)
    np.testing.assert_array_equal(view.embeds[text], TABLE.embedding[data.ids][text])
    expected = gaussian.interpolate(targets.noise, data.latents, view.time)
    np.testing.assert_allclose(view.latents[image], expected[image], atol=1e-6)
    np.testing.assert_array_equal(targets.image_scored, data.is_image)
    for row in range(len(text)):
        times = {
            span: set(np.asarray(view.time[row])[np.asarray(data.span[row]) == span].tolist())
            for span in np.unique(np.asarray(data.span[row])[image[row]])
        }
        assert all(len(each) == 1 for each in times.values())
    clocks_seen = np.asarray(view.time)[image]
    assert clocks_seen.min() < 0.2
    assert clocks_seen.max() > 0.8


def test_each_image_of_a_document_has_its_own_time(data):
    view, _ = corrupt_rows(paradigm(), data)
    several = 0
    for row in range(data.ids.shape[0]):
        image = np.asarray(data.is_image[row])
        spans = np.unique(np.asarray(data.span[row])[image])
        if len(spans) > 1:
            several += 1
            assert len(np.unique(np.asarray(view.time[row])[image])) == len(spans)
    assert several > 0


def test_at_shared_time_every_image_has_the_time_of_its_document(data):
    view, targets = corrupt_rows(paradigm().at_shared_time, data)
    u = np.linspace(0, 0.9, data.ids.shape[0], dtype=np.float32)
    image = np.asarray(data.is_image)
    expected = np.broadcast_to(u[:, None], image.shape)[image]
    np.testing.assert_allclose(np.asarray(view.time)[image], expected, atol=1e-6)
    np.testing.assert_array_equal(targets.image_scored, image)


def test_images_are_clean_in_caption_documents(data):
    view, targets = corrupt_rows(paradigm("image_to_text"), data)
    image = np.asarray(data.is_image)
    np.testing.assert_array_equal(view.latents[image], data.latents[image])
    np.testing.assert_array_equal(view.time, 1.0)
    assert not targets.image_scored.any()
    assert targets.text_scored.any()


def test_text_targets_are_the_next_tokens(data):
    _, targets = corrupt_rows(paradigm(), data)
    ids, scored = np.asarray(data.ids), np.asarray(targets.text_scored)
    for row, slot in zip(*np.nonzero(scored), strict=True):
        assert targets.ids[row, slot] == ids[row, slot + 1]
        assert data.modality[row, slot + 1] == Modality.TEXT
    # Every token but BOS is a target once.
    assert scored.sum() == np.sum(np.asarray(data.is_text)) - len(ids)


def test_oracle_has_no_loss(data):
    flow = paradigm()
    _, targets = corrupt_rows(flow, data)
    outputs = {
        "token_logits": 1e4 * jax.nn.one_hot(targets.ids, tiny.VOCAB),
        "image": data.latents,
    }
    losses = jax.vmap(flow.loss)(outputs, targets)
    for term in losses.values():
        np.testing.assert_allclose(term.total, 0.0, atol=1e-6)
        assert np.asarray(term.count).sum() > 0
    wrong = outputs | {"token_logits": jnp.roll(outputs["token_logits"], 1, axis=1)}
    assert jax.vmap(flow.loss)(wrong, targets)["text"].total.sum() > 100


def test_unsupported_plans_are_refused():
    flow = paradigm()
    assert (flow.attention_pattern, flow.supports_editing) == (AttentionPattern.MIXED, False)
    refused = {
        "cannot edit": SamplingPlan(ode.make_schedule("euler", 2, start=0.5)),
        "remask": SamplingPlan(
            ode.make_schedule("euler", 2),
            token_sampling=token_sampling.TokenSampling(remask_prob=0.1),
        ),
        "guidance": SamplingPlan(ode.make_schedule("euler", 2), text_guidance_scale=2.0),
    }
    for message, plan in refused.items():
        with pytest.raises(UserError, match=message):
            flow.validate(plan)
    flow.validate(
        SamplingPlan(
            ode.make_schedule("heun", 3),
            token_sampling=token_sampling.TokenSampling(temperature=0.5),
        )
    )
