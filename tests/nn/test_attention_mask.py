"""Tests that compare attention masks with a definition that loops over pairs of slots."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import AttentionPattern, Modality, NoisyCanvas
from oneflow_jax.data import toy
from oneflow_jax.nn import attention_mask
from tests import tiny


def reference_mask(view, pattern, row):
    kind, segment, order = (
        np.asarray(x)[row] for x in (view.modality, view.segment, view.position[..., 0])
    )

    def is_visible(i, j):
        if segment[i] != segment[j]:
            return False
        picture = kind[i] == kind[j] == Modality.IMAGE and order[i] == order[j]
        before = j <= i
        return {
            AttentionPattern.BIDIRECTIONAL: True,
            AttentionPattern.CAUSAL: before,
            AttentionPattern.MIXED: before or picture,
        }[pattern]

    slots = range(len(kind))
    return [[is_visible(i, j) for j in slots] for i in slots]


def make_view(modality, segment, order):
    """Return a network input with these fields and content 0, for one row or a batch of rows."""
    modality, segment, order = (jnp.atleast_2d(jnp.asarray(x)) for x in (modality, segment, order))
    position = jnp.stack([order, 0 * order, 0 * order], axis=-1)
    empty = jnp.zeros((*modality.shape, 1))
    return NoisyCanvas(modality, segment, position, empty, empty, empty[..., 0])


def random_view(seed, batch_size=6, num_slots=48):
    """Return packed random documents; neighbors in two documents may have the same order."""
    rng = np.random.default_rng(seed)
    fields = np.zeros((3, batch_size, num_slots), np.int32)
    for row in range(batch_size):
        used = 0
        for segment in range(1, rng.integers(2, 6)):
            for order in range(rng.integers(1, 8)):
                kind = rng.choice([Modality.TEXT, Modality.IMAGE])
                size = 1 if kind == Modality.TEXT else rng.integers(1, 7)
                fields[:, row, used : used + size] = np.array([[kind], [segment], [order]])
                used += size
    return make_view(*fields)


@pytest.mark.parametrize("attend", AttentionPattern)
def test_mask_of_random_rows_matches_its_definition(attend):
    view = random_view(seed=0)
    actual = np.asarray(attention_mask.from_canvas(view, attend).materialize())
    expected = np.array([reference_mask(view, attend, row) for row in range(6)])
    np.testing.assert_array_equal(actual, expected)
    assert actual.any(axis=-1).all()  # Every query attends to at least one key.
    assert len({tuple(row) for row in np.asarray(view.segment)}) == 6


@pytest.mark.parametrize("attend", AttentionPattern)
def test_mask_of_laid_out_documents_matches_its_definition(attend):
    """Check packed documents with neighboring images and empty slots."""
    documents = [item for item in toy.Toy(documents=12) if len(item.images()) > 1][:2]
    lay = dataclasses.replace(tiny.make_layout(64, 0), has_markers=True)
    rows = [lay.row(item) for item in documents]
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    segment = np.repeat([1, 2], [len(row["modality"]) for row in rows])
    canvas = lay.canvas([joined])
    segment = np.pad(segment, (0, 64 - len(segment)))[None]
    view = tiny.noisy_canvas(canvas).replace(segment=segment)
    expected = np.array(reference_mask(view, attend, 0))
    np.testing.assert_array_equal(
        attention_mask.from_canvas(view, attend).materialize()[0], expected
    )
    assert expected.sum() < expected.size


def test_bidirectional_mask_covers_exactly_the_own_document():
    view = make_view([1, 1, 1, 0], [1, 1, 2, 0], [0, 1, 0, 0])
    np.testing.assert_array_equal(
        attention_mask.from_canvas(view, AttentionPattern.BIDIRECTIONAL).materialize()[0],
        [
            [True, True, False, False],
            [True, True, False, False],
            [False, False, True, False],
            [False, False, False, True],
        ],
    )


def test_decode_mask_is_causal_for_text_and_full_within_an_image():
    words = make_view([[1, 1, 1], [2, 2, 2]], [[1, 1, 1], [1, 1, 1]], [[5, 6, 7], [5, 5, 5]])
    length = np.array([2, 4])
    actual = attention_mask.for_decode(words, jnp.asarray(length), num_keys=9)
    last = [[length[0] + i for i in range(3)], [length[1] + 2] * 3]
    expected = [[[slot <= upto for slot in range(9)] for upto in row] for row in last]
    np.testing.assert_array_equal(actual.materialize(), expected)
    assert actual.pattern is None


@pytest.mark.parametrize("attend", AttentionPattern)
def test_no_query_attends_to_unused_cache_slots(attend):
    view = random_view(seed=1)
    whole = attention_mask.from_canvas(view, attend)
    padded = whole.pad_keys(60)
    np.testing.assert_array_equal(padded.materialize()[..., :48], whole.materialize())
    assert not padded.materialize()[..., 48:].any()
    assert padded.pattern is None
