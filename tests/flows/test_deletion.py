"""Tests of deletion: missing items are counted in the right gap, and other slots do not change."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Modality
from oneflow_jax.data import pipeline, toy
from oneflow_jax.data.document import Document
from oneflow_jax.flows import deletion
from tests import tiny


@pytest.fixture(scope="module")
def row():
    """Return a row of three packed documents of text and images."""
    lay = tiny.make_layout(length=96, text_slots=0)
    batches = pipeline.canvas_batches(
        list(toy.Toy(documents=40, interleaved=0.7)),
        lay,
        batch_size=1,
        seed=0,
        num_workers=0,
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    )
    canvas = jax.tree.map(lambda x: x[0], next(iter(batches)))
    assert int(canvas.segment.max()) >= 3
    return canvas


def random_keep_mask(row, seed, fraction=0.5):
    """Return a mask that keeps BOS and random items; images are kept or deleted as a whole."""
    rng = np.random.default_rng(seed)
    items = np.cumsum(np.asarray(deletion.item_starts(row)))
    keep = rng.random(items.max() + 1)[items] < fraction
    exists = np.asarray(row.modality) != Modality.PAD
    return exists & (keep | np.asarray(row.is_given))


def list_items(row, selected):
    """List tokens (as ids) and images (as negative index of their first slot) of a row, in
    order."""
    first = np.asarray(deletion.item_starts(row)) & selected
    ids, image = np.asarray(row.ids), np.asarray(row.is_image)
    return [(-slot if image[slot] else int(ids[slot])) for slot in np.flatnonzero(first)]


@pytest.mark.parametrize("seed", range(8))
def test_kept_and_missing_items_rebuild_the_row(row, seed):
    keep = random_keep_mask(row, seed)
    gaps = deletion.gaps(row, jnp.asarray(keep))
    missing, gap = np.asarray(gaps.deleted), np.asarray(gaps.gap_slot)
    assert int(gaps.num_missing.sum()) == missing.sum()
    assert missing.sum() + (keep & np.asarray(deletion.item_starts(row))).sum() == len(
        list_items(row, np.ones_like(keep))
    )
    rebuilt = []
    for slot in np.flatnonzero(keep):
        rebuilt += list_items(row, np.arange(len(keep)) == slot)
        if gaps.anchor[slot]:
            bag = missing & (gap == slot)
            assert gaps.num_missing[slot] == bag.sum()
            # A gap contains no items of other documents.
            assert set(np.asarray(row.segment)[bag]) <= {int(row.segment[slot])}
            rebuilt += list_items(row, bag)
    assert rebuilt == list_items(row, np.ones_like(keep))


def test_anchors_are_tokens_and_last_slots_of_images(row):
    keep = random_keep_mask(row, 3)
    anchor = np.asarray(deletion.gaps(row, jnp.asarray(keep)).anchor)
    text, image, span = (np.asarray(x) for x in (row.is_text, row.is_image, row.span))
    np.testing.assert_array_equal(anchor[text], keep[text])
    for number in np.unique(span[image]):
        at = np.flatnonzero(span == number)
        assert not anchor[at[:-1]].any()
        assert anchor[at[-1]] == keep[at[-1]]


@pytest.mark.parametrize("seed", range(3))
def test_kept_items_are_renumbered_in_each_document(row, seed):
    keep = random_keep_mask(row, seed)
    left = deletion.compact(row, jnp.asarray(keep))
    np.testing.assert_array_equal(np.asarray(left.modality) != Modality.PAD, keep)
    np.testing.assert_array_equal(left.segment, np.where(keep, row.segment, 0))
    for document in range(1, int(row.segment.max()) + 1):
        at = np.flatnonzero(keep & (np.asarray(row.segment) == document))
        orders = np.asarray(left.position)[at, 0]
        first = np.asarray(deletion.item_starts(row))[at]
        np.testing.assert_array_equal(orders[first], np.arange(first.sum()))
        # Patches of one image have the same order.
        np.testing.assert_array_equal(np.diff(orders)[~first[1:]], 0)
    np.testing.assert_array_equal(left.position[:, 1:], row.position[:, 1:])


def test_row_without_deletions_is_unchanged(row):
    whole = np.asarray(row.modality) != Modality.PAD
    left = deletion.compact(row, jnp.asarray(whole))
    jax.tree.map(np.testing.assert_array_equal, left, row)


def test_interleaved_images_are_absent_noisy_and_clean_with_expected_rates():
    u, birth = (jax.random.uniform(key, (200_000,)) for key in jax.random.split(jax.random.key(0)))
    time = np.asarray(deletion.interleaved_time(u, birth))
    flowing = time[(time >= 0) & (time < 1)]
    shares = np.array([np.mean(time < 0), len(flowing) / len(time), np.mean(time == 1)])
    np.testing.assert_allclose(shares, [1 / 4, 1 / 2, 1 / 4], atol=4 * np.sqrt(0.25 / len(time)))
    # The distribution is uniform: all deciles are equally frequent.
    counts = np.histogram(flowing, 10, (0, 1))[0] / len(flowing)
    np.testing.assert_allclose(counts, 0.1, atol=4 * np.sqrt(0.09 / len(flowing)))


def test_insertion_probability_of_small_steps_equals_one_large_step():
    count = jnp.array([1.0, 2.5, 7.0])
    times = np.linspace(0.2, 0.9, 30)
    left = 1.0
    for t, s in itertools.pairwise(times):
        left = left * (1 - deletion.insert_probability(jnp.float32(t), jnp.float32(s), count))
    whole = deletion.insert_probability(jnp.float32(0.2), jnp.float32(0.9), count)
    np.testing.assert_allclose(1 - left, whole, rtol=1e-4)
    np.testing.assert_allclose(whole[0], 1 - 0.1 / 0.8, rtol=1e-5)
    np.testing.assert_array_equal(
        deletion.insert_probability(jnp.float32(0.9), jnp.float32(1.0), count), 1
    )


def test_an_empty_document_has_one_gap():
    lay = tiny.make_layout(length=32, text_slots=0)
    item = toy.Toy(documents=1, interleaved=0.0)[0]
    canvas = jax.tree.map(jnp.asarray, lay.canvas([lay.row(Document(item.parts))]))
    canvas = jax.tree.map(lambda x: x[0], canvas)
    gaps = deletion.gaps(canvas, canvas.is_given)
    items = len(lay.vocab.encode(item.text())) + len(item.images())
    assert int(gaps.num_missing[0]) == items
    assert int(gaps.num_missing.sum()) == items
