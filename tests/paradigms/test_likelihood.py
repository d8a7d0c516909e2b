"""Tests of likelihoods and bounds: for an exact network, the mean is the language's entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Modality
from oneflow_jax.paradigms import likelihood
from tests import tiny
from tests.paradigms import (
    small_language,
    test_chameleon,
    test_edit_flow,
    test_mask_flow,
    test_transfusion,
)
from tests.paradigms.oracle import SEED, TABLE, row_keys

ROWS = 8_000


def entropy(probs):
    return float(-np.sum(np.array(probs) * np.log(probs)))


def corrupt_rows(paradigm, canvas, table):
    """Corrupt each row at its own time; the times are stratified over [0, 1]."""
    rows, length = canvas.ids.shape
    u = np.random.default_rng(SEED).permutation((np.arange(rows) + 0.5) / rows)
    at = jnp.broadcast_to(jnp.array(u, jnp.float32)[:, None], (rows, length))
    corrupt = jax.vmap(lambda k, u, row: paradigm.corrupt(k, u, row, table))
    return corrupt(row_keys(SEED, rows), at, canvas)


def row_nats(paradigm, apply, canvas, table):
    """Return -log p of each row, or a sample of its bound, in nats."""
    view, targets = corrupt_rows(paradigm, canvas, table)
    return np.asarray(jax.vmap(paradigm.loss)(apply(view), targets)["text"].total)


def assert_mean_close(nats, expected):
    error = nats.std() / np.sqrt(len(nats))
    assert error < 0.04
    assert abs(nats.mean() - expected) < 4 * error, (nats.mean(), expected, error)


def test_exact_mask_flow_network_costs_the_entropy():
    lang = small_language.PARITY
    rows = np.repeat(np.array(lang.texts), np.round(np.array(lang.probs) * ROWS).astype(int), 0)
    canvas = lang.canvas(ROWS)
    canvas = canvas.replace(ids=canvas.ids.at[:, 1:].set(rows))
    # `max_mask_weight` applies to training only: a low value must not change the bound.
    flow = test_mask_flow.paradigm(
        vocab_size=small_language.VOCAB, channels=small_language.CHANNELS, max_mask_weight=2.0
    )
    nats = row_nats(
        likelihood.likelihood_bound(flow).paradigm,
        lang.predict_masked,
        canvas,
        small_language.TABLE,
    )
    assert_mean_close(nats, entropy(lang.probs))


@pytest.mark.parametrize("module", [test_transfusion, test_chameleon])
def test_autoregressive_likelihood_sums_next_tokens(module):
    canvas = module.data.__wrapped__()
    scorer = likelihood.likelihood_bound(module.paradigm()).paradigm
    rows, length = canvas.ids.shape
    _, targets = corrupt_rows(scorer, canvas, TABLE)
    logits = jax.random.normal(jax.random.key(1), (rows, length, tiny.VOCAB))
    outputs = {"token_logits": logits, "image": jnp.zeros_like(canvas.latents)}
    actual = jax.vmap(scorer.loss)(outputs, targets)["text"].total
    nats = -jax.nn.log_softmax(logits)
    for row in range(rows):
        segment, kind = np.asarray(canvas.segment[row]), np.asarray(canvas.modality[row])
        followed = [
            slot
            for slot in range(length - 1)
            if kind[slot + 1] == Modality.TEXT and segment[slot] == segment[slot + 1] > 0
        ]
        ids = np.asarray(canvas.ids[row])
        expected = sum(float(nats[row, slot, ids[slot + 1]]) for slot in followed)
        np.testing.assert_allclose(actual[row], expected, rtol=1e-5)


def test_images_before_text_are_clean():
    canvas = test_transfusion.data.__wrapped__()
    scorer = likelihood.likelihood_bound(test_transfusion.paradigm()).paradigm
    view, _ = corrupt_rows(scorer, canvas, TABLE)
    np.testing.assert_array_equal(view.latents, canvas.latents)
    assert np.all(np.asarray(view.time)[np.asarray(canvas.is_image)] == 1)


@pytest.mark.parametrize(
    "paradigm", [tiny.paradigm("cross_entropy", "x1"), test_edit_flow.paradigm()]
)
def test_paradigms_without_likelihood(paradigm):
    assert likelihood.likelihood_bound(paradigm) is None
