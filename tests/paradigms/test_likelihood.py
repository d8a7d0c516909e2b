"""The likelihood of words, or its bound: for exact networks it is what the language is worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Kind
from oneflow_jax.paradigms import growth, likelihood
from tests import tiny
from tests.paradigms import (
    insertions,
    language,
    test_chameleon,
    test_edit_flow,
    test_mask_flow,
    test_transfusion,
)
from tests.paradigms.oracle import SEED, TABLE, keys

ROWS = 8_000

DISTINCT = insertions.Language(
    ((4,), (5, 4), (4, 6, 5), (5, 6, 4, 7)), (0.4, 0.3, 0.2, 0.1), vocab=8
)
"""No text has a token twice: what is left of one tells which of its tokens they are."""


def entropy(shares):
    return float(-np.sum(np.array(shares) * np.log(shares)))


def texts_of(given, length):
    """Rows of BOS and a text, each as often as the language has it."""
    canvas = insertions.prompts(ROWS, length)
    counts = np.round(np.array(given.shares) * ROWS).astype(int)
    ids, kind = np.array(canvas.ids), np.array(canvas.kind)
    rows = np.repeat(np.arange(len(counts)), counts)
    for row, which in enumerate(rows):
        text = given.texts[which]
        ids[row, 1 : 1 + len(text)] = text
        kind[row, 1 : 1 + len(text)] = int(Kind.TEXT)
    there = kind == Kind.TEXT
    order = np.where(there, np.arange(length), 0)
    return canvas.replace(
        ids=jnp.array(ids),
        kind=jnp.array(kind),
        segment=jnp.array(there.astype(int)),
        span=jnp.where(there, jnp.where(order == 0, 1, 2), 0),
        position=jnp.stack([jnp.array(order)] + [jnp.zeros((ROWS, length), int)] * 2, axis=-1),
    )


def corrupted(scorer, canvas, table):
    """Each row at a time of its own; together they cover all times."""
    rows, length = canvas.ids.shape
    u = np.random.default_rng(SEED).permutation((np.arange(rows) + 0.5) / rows)
    at = jnp.broadcast_to(jnp.array(u, jnp.float32)[:, None], (rows, length))
    corrupt = jax.vmap(lambda k, u, row: scorer.corrupt(k, u, row, table))
    return corrupt(keys(SEED, rows), at, canvas)


def scored(scorer, apply, canvas, table):
    """Nats of each row."""
    view, targets = corrupted(scorer, canvas, table)
    return np.asarray(jax.vmap(scorer.loss)(apply(view), targets)["text"].total)


def close(nats, expected):
    error = nats.std() / np.sqrt(len(nats))
    assert error < 0.04
    assert abs(nats.mean() - expected) < 4 * error, (nats.mean(), expected, error)


def growing():
    flow = test_edit_flow.paradigm(text_clock=True)
    words = growth.Alphabet(vocab=8, words=(4, 8), image_token=3, grid=(1, 1))
    return likelihood.scorer(dataclasses.replace(flow, alphabet=words, channels=2))


def test_insertions_of_an_exact_network_cost_the_entropy():
    canvas = texts_of(DISTINCT, 6)
    nats = scored(growing(), DISTINCT.network(sees_time=True), canvas, insertions.table(8))
    close(nats, entropy(DISTINCT.shares))


@pytest.mark.parametrize("spoiled", ["gap_count", "gap_empty", "gap_logits"])
def test_insertions_of_any_other_cost_more(spoiled):
    """A little too many, too seldom, or the wrong ones."""
    canvas, exact = texts_of(DISTINCT, 6), DISTINCT.network(sees_time=True)

    def apply(view):
        outputs = exact(view)
        worse = {
            "gap_count": outputs["gap_count"] + 1.0,
            "gap_empty": outputs["gap_empty"] + 1.0,
            "gap_logits": outputs["gap_logits"] * 0.3,
        }
        return outputs | {spoiled: worse[spoiled]}

    nats = [scored(growing(), net, canvas, insertions.table(8)) for net in (exact, apply)]
    more = nats[1] - nats[0]
    assert more.mean() > 4 * more.std() / np.sqrt(ROWS)


def test_masks_of_an_exact_network_cost_the_entropy():
    lang = language.THREE
    rows = np.repeat(np.array(lang.texts), np.round(np.array(lang.shares) * ROWS).astype(int), 0)
    canvas = lang.canvas(ROWS)
    canvas = canvas.replace(ids=canvas.ids.at[:, 1:].set(rows))
    # The cap is of training alone.
    flow = test_mask_flow.paradigm(vocab=language.VOCAB, channels=language.CHANNELS, cap=2.0)
    nats = scored(likelihood.scorer(flow), lang.masked, canvas, language.TABLE)
    close(nats, entropy(lang.shares))


@pytest.mark.parametrize("made", [test_transfusion, test_chameleon])
def test_from_left_to_right_it_is_the_sum_over_next_tokens(made):
    canvas = made.data.__wrapped__()
    scorer = likelihood.scorer(made.paradigm())
    rows, length = canvas.ids.shape
    _, targets = corrupted(scorer, canvas, TABLE)
    logits = jax.random.normal(jax.random.key(1), (rows, length, tiny.VOCAB))
    outputs = {"token_logits": logits, "image": jnp.zeros_like(canvas.latents)}
    found = jax.vmap(scorer.loss)(outputs, targets)["text"].total
    nats = -jax.nn.log_softmax(logits)
    for row in range(rows):
        segment, kind = np.asarray(canvas.segment[row]), np.asarray(canvas.kind[row])
        followed = [
            slot
            for slot in range(length - 1)
            if kind[slot + 1] == Kind.TEXT and segment[slot] == segment[slot + 1] > 0
        ]
        ids = np.asarray(canvas.ids[row])
        expected = sum(float(nats[row, slot, ids[slot + 1]]) for slot in followed)
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)


def test_pictures_before_words_are_clean():
    canvas = test_transfusion.data.__wrapped__()
    scorer = likelihood.scorer(test_transfusion.paradigm())
    view, _ = corrupted(scorer, canvas, TABLE)
    np.testing.assert_array_equal(view.latents, canvas.latents)
    assert np.all(np.asarray(view.clock)[np.asarray(canvas.is_image)] == 1)


def test_points_of_a_continuous_flow_have_none():
    assert likelihood.scorer(tiny.paradigm("endpoint", "clean")) is None
