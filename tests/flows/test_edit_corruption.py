"""Tests of edit corruption: rates of the errors, and targets that correct the errors."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Modality
from oneflow_jax.data import pipeline, toy
from oneflow_jax.flows import deletion, edit_corruption
from tests import tiny

TEXT_ID_RANGE = (6, tiny.VOCAB)


@pytest.fixture(scope="module")
def row():
    """Return a row of several packed documents of text and images."""
    batches = pipeline.canvas_batches(
        list(toy.Toy(documents=40, interleaved=0.7)),
        tiny.make_layout(length=96, text_slots=0),
        batch_size=1,
        seed=0,
        num_workers=0,
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    )
    canvas = jax.tree.map(lambda x: x[0], next(iter(batches)))
    assert int(canvas.segment.max()) >= 3
    assert len(np.unique(canvas.span[canvas.is_image])) >= 3
    return canvas


def all_eligible(row):
    return jnp.ones(row.modality.shape, bool)


def times(row, t):
    return jnp.full(row.modality.shape, t, jnp.float32)


@jax.jit
def sample_corruption(key, row, t, eligible):
    return edit_corruption.sample(key, t, row, TEXT_ID_RANGE, eligible)


def sample_corruptions(row, t, num_samples=2000):
    keys = jax.random.split(jax.random.key(3), num_samples)
    corrupted = jax.vmap(sample_corruption, (0, None, None, None))(
        keys, row, times(row, t), all_eligible(row)
    )
    return types.SimpleNamespace(**{
        field.name: np.asarray(getattr(corrupted, field.name))
        for field in dataclasses.fields(corrupted)
    })  # fmt: skip


def list_items(row, selected):
    """List tokens (as ids) and images (as latents) of each document in order."""
    order = np.lexsort((np.asarray(row.position[:, 0]), np.asarray(row.segment)))
    first = np.asarray(deletion.item_starts(row)) & np.asarray(selected)
    image = np.asarray(row.is_image)
    return [
        np.asarray(row.latents)[slot].tobytes() if image[slot] else int(row.ids[slot])
        for slot in order
        if first[slot]
    ]


def corrupt_row(key, row, t):
    wrong = sample_corruption(key, row, times(row, t), all_eligible(row))
    keep = (row.modality != Modality.PAD) & ~wrong.deleted
    gaps = deletion.gaps(row, keep)
    left = deletion.compact(row.replace(ids=wrong.ids, latents=wrong.latents), keep)
    grown, owner = edit_corruption.insert_spurious(
        jax.random.fold_in(key, 1), times(row, t), left, gaps.anchor, TEXT_ID_RANGE
    )
    return wrong, keep, gaps, grown, owner


def test_no_errors_at_t_1(row):
    wrong, _, _, grown, owner = corrupt_row(jax.random.key(0), row, 1.0)
    assert not (wrong.substituted | wrong.deleted | wrong.renoised).any()
    assert np.all(np.asarray(owner) == -1)
    jax.tree.map(np.testing.assert_array_equal, grown, row)


def test_each_kind_of_error_has_a_third_of_the_error_rate(row):
    t, count = 0.7, 2000
    corrupted = sample_corruptions(row, t, count)
    first = np.asarray(deletion.item_starts(row) & row.to_generate)
    text, image = first & np.asarray(row.is_text), first & np.asarray(row.is_image)
    third = (1 - t) / 3
    # A random substitute may equal the right token by chance.
    assert abs(corrupted.deleted[:, text].mean() - third) < 4 * np.sqrt(
        third / corrupted.deleted[:, text].size
    )
    same = 1 / (TEXT_ID_RANGE[1] - TEXT_ID_RANGE[0])
    wrong = corrupted.substituted[:, text].mean()
    assert third * (1 - same) < wrong <= 2 * third * 1.03
    n = count * image.sum()
    # Each image draws its own corruption. An image whose replacement would be equal to it is noised
    # instead, so the rates of both corruptions are added.
    for share, due in (
        (corrupted.deleted, third),
        (corrupted.renoised | corrupted.substituted, 2 * third),
    ):
        assert abs(share[:, image].mean() - due) < 4 * np.sqrt(due * (1 - due) / n)
    assert corrupted.renoised[:, image].mean() < 1.3 * third


def test_all_slots_of_an_image_get_the_same_error(row):
    corrupted = sample_corruptions(row, 0.5, 50)
    latents, span = np.asarray(row.latents), np.asarray(row.span)
    pictures = [np.flatnonzero(span == n) for n in np.unique(span[np.asarray(row.is_image)])]
    whole = {latents[at].tobytes() for at in pictures}
    for at in pictures:
        for field in (corrupted.substituted, corrupted.deleted, corrupted.renoised, corrupted.time):
            assert np.all(field[:, at] == field[:, at[:1]])
        for n in np.flatnonzero(corrupted.substituted[:, at[0]]):
            assert corrupted.latents[n, at].tobytes() in whole
        right = ~corrupted.substituted[:, at[0]]
        assert np.all(corrupted.latents[right][:, at] == latents[at])


def test_swapped_tokens_exchange_ids(row):
    corrupted = sample_corruptions(row, 0.6, 200)
    text = np.asarray(row.is_text & row.to_generate)
    moved = corrupted.substituted & text & (corrupted.ids != np.asarray(row.ids))
    # After a swap of two neighbors, each has the other's id.
    ids = np.asarray(row.ids)
    at = np.flatnonzero(text[:-1] & text[1:] & (ids[:-1] != ids[1:]))
    swaps = (corrupted.ids[:, at] == ids[at + 1]) & (corrupted.ids[:, at + 1] == ids[at])
    assert (swaps & moved[:, at] & moved[:, at + 1]).any()


def test_swaps_stay_within_a_document(row):
    partner = edit_corruption._next_in_document(row.is_text & row.to_generate, row.segment)
    segment, chosen = np.asarray(row.segment), np.asarray(row.is_text & row.to_generate)
    partner = np.asarray(partner)
    np.testing.assert_array_equal(segment[partner[chosen]], segment[chosen])
    for document in np.unique(segment[chosen]):
        slots = np.flatnonzero(chosen & (segment == document))
        np.testing.assert_array_equal(partner[slots], np.roll(slots, -1))


def test_equal_images_are_never_substituted(row):
    """Check that a single image, and equal images, may be renoised but are never substituted."""
    span, image = np.asarray(row.span), np.asarray(row.is_image)
    first = span == span[image][0]
    same = row.replace(
        latents=jnp.where(image[:, None], jnp.tile(row.latents[first], (24, 1)), row.latents)
    )
    alone = row.replace(
        modality=jnp.where(jnp.asarray(image & ~first), int(Modality.PAD), row.modality)
    )
    for canvas in (same, alone):
        corrupted = sample_corruptions(canvas, 0.4, 100)
        there = np.asarray(canvas.is_image)
        assert not corrupted.substituted[:, there].any()
        assert abs(corrupted.renoised[:, first].mean() - 0.4) < 0.2


def test_only_selected_and_never_given_slots_are_corrupted(row):
    where = row.segment == 2
    corrupted = sample_corruption(jax.random.key(1), row, times(row, 0.0), where)
    touched = np.asarray(corrupted.substituted | corrupted.deleted | corrupted.renoised)
    assert touched.any()
    assert not touched[~np.asarray(where)].any()
    assert not touched[np.asarray(row.is_given)].any()


@pytest.mark.parametrize("seed", range(6))
def test_applying_the_targets_restores_the_document(row, seed):
    wrong, keep, gaps, grown, owner = corrupt_row(jax.random.key(seed), row, 0.5)
    extra = np.asarray(owner) >= 0
    assert extra.any()
    order = np.lexsort((np.asarray(grown.position[:, 0]), np.asarray(grown.segment)))
    first = np.asarray(deletion.item_starts(row)) & np.asarray(keep)
    last = {}  # Last slot of each image, which is the anchor of the gap after it.
    span, image = np.asarray(row.span), np.asarray(row.is_image)
    for slot in np.flatnonzero(first):
        last[slot] = np.flatnonzero(span == span[slot])[-1] if image[slot] else slot
    ids, latents = np.asarray(row.ids), np.asarray(row.latents)
    missing, gap = np.asarray(gaps.deleted), np.asarray(gaps.gap_slot)

    def item(slot):
        return latents[slot].tobytes() if image[slot] else int(ids[slot])

    rebuilt, num_deleted = [], 0
    for slot in order:
        if extra[slot]:
            num_deleted += 1  # The target of a spurious token is to delete it.
        elif first[slot]:
            rebuilt.append(item(slot))  # The target is to keep the item, or to restore it.
            rebuilt += [item(m) for m in np.flatnonzero(missing & (gap == last[slot]))]
    assert num_deleted == extra.sum()
    assert rebuilt == list_items(row, row.modality != Modality.PAD)
    # Items that are not marked as wrong must already be right.
    right = first & ~np.asarray(wrong.substituted | wrong.renoised)
    np.testing.assert_array_equal(np.asarray(grown.ids)[right], ids[right])


def test_spurious_tokens_stay_within_a_document(row):
    _, keep, _, grown, owner = corrupt_row(jax.random.key(4), row, 0.5)
    owner = np.asarray(owner)
    segment, order = np.asarray(grown.segment), np.asarray(grown.position[:, 0])
    for slot in np.flatnonzero(owner >= 0):
        assert segment[slot] == segment[owner[slot]]
        assert order[slot] == order[owner[slot]] + 1
    there = np.asarray(deletion.item_starts(grown)) & ((owner >= 0) | np.asarray(keep))
    for document in np.unique(segment[there]):
        at = there & (segment == document)
        np.testing.assert_array_equal(np.sort(order[at]), np.arange(at.sum()))


def test_spurious_tokens_have_the_expected_rate(row):
    padded = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x)]), row)
    anchors = np.asarray(deletion.gaps(padded, padded.modality != Modality.PAD).anchor)
    t = 0.6
    count = jax.vmap(
        lambda key: jnp.sum(
            edit_corruption.insert_spurious(
                key, times(padded, t), padded, jnp.asarray(anchors), TEXT_ID_RANGE
            )[1]
            >= 0
        )
    )(jax.random.split(jax.random.key(5), 400))
    expected = anchors.sum() * edit_corruption.SPURIOUS_RATE * (1 - t)
    assert abs(np.mean(count) - expected) < 4 * np.sqrt(expected / 400)


def test_full_rows_get_no_spurious_tokens(row):
    full = jax.tree.map(lambda x: x[: int((row.modality != Modality.PAD).sum())], row)
    anchors = deletion.gaps(full, full.modality != Modality.PAD).anchor
    grown, owner = edit_corruption.insert_spurious(
        jax.random.key(6), times(full, 0.0), full, anchors, TEXT_ID_RANGE
    )
    assert np.all(np.asarray(owner) == -1)
    jax.tree.map(np.testing.assert_array_equal, grown, full)
