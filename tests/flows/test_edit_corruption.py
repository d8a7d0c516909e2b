"""Mistakes come as often as they should, and what the targets say puts them right."""

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
    """Several documents of words and pictures in one row, as they are packed in training."""
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
    return jnp.ones(row.kind.shape, bool)


def times(row, t):
    return jnp.full(row.kind.shape, t, jnp.float32)


@jax.jit
def sample_corruption(key, row, t, eligible):
    return edit_corruption.sample(key, t, row, TEXT_ID_RANGE, eligible)


def sample_corruptions(row, t, num_samples=2000):
    keys = jax.random.split(jax.random.key(3), num_samples)
    found = jax.vmap(sample_corruption, (0, None, None, None))(
        keys, row, times(row, t), all_eligible(row)
    )
    return types.SimpleNamespace(**{
        field.name: np.asarray(getattr(found, field.name)) for field in dataclasses.fields(found)
    })  # fmt: skip


def list_items(row, selected):
    """Tokens, and pictures by their latents, in their order in each document."""
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
    kept = (row.kind != Modality.PAD) & ~wrong.missing
    gaps = deletion.gaps(row, kept)
    left = deletion.compact(row.replace(ids=wrong.ids, latents=wrong.latents), kept)
    grown, owner = edit_corruption.insert_spurious(
        jax.random.fold_in(key, 1), times(row, t), left, gaps.anchor, TEXT_ID_RANGE
    )
    return wrong, kept, gaps, grown, owner


def test_at_the_end_nothing_is_wrong(row):
    wrong, _, _, grown, owner = corrupt_row(jax.random.key(0), row, 1.0)
    assert not (wrong.wrong | wrong.missing | wrong.noisy).any()
    assert np.all(np.asarray(owner) == -1)
    jax.tree.map(np.testing.assert_array_equal, grown, row)


def test_each_kind_of_mistake_has_a_third_of_what_is_due(row):
    t, count = 0.7, 2000
    found = sample_corruptions(row, t, count)
    first = np.asarray(deletion.item_starts(row) & row.free)
    text, image = first & np.asarray(row.is_text), first & np.asarray(row.is_image)
    third = (1 - t) / 3
    # Random words are the right ones now and then.
    assert abs(found.missing[:, text].mean() - third) < 4 * np.sqrt(
        third / found.missing[:, text].size
    )
    same = 1 / (TEXT_ID_RANGE[1] - TEXT_ID_RANGE[0])
    wrong = found.wrong[:, text].mean()
    assert third * (1 - same) < wrong <= 2 * third * 1.03
    n = count * image.sum()
    # Pictures are drawn apart, so that all are independent. Where the other is the same, a picture
    # cannot be wrong, and is noisy.
    for share, due in ((found.missing, third), (found.noisy | found.wrong, 2 * third)):
        assert abs(share[:, image].mean() - due) < 4 * np.sqrt(due * (1 - due) / n)
    assert found.noisy[:, image].mean() < 1.3 * third


def test_a_picture_s_slots_share_its_lot_and_a_wrong_one_is_another_whole(row):
    found = sample_corruptions(row, 0.5, 50)
    latents, span = np.asarray(row.latents), np.asarray(row.span)
    pictures = [np.flatnonzero(span == n) for n in np.unique(span[np.asarray(row.is_image)])]
    whole = {latents[at].tobytes() for at in pictures}
    for at in pictures:
        for field in (found.wrong, found.missing, found.noisy, found.time):
            assert np.all(field[:, at] == field[:, at[:1]])
        for n in np.flatnonzero(found.wrong[:, at[0]]):
            assert found.latents[n, at].tobytes() in whole
        right = ~found.wrong[:, at[0]]
        assert np.all(found.latents[right][:, at] == latents[at])


def test_swapped_words_change_places(row):
    found = sample_corruptions(row, 0.6, 200)
    text = np.asarray(row.is_text & row.free)
    moved = found.wrong & text & (found.ids != np.asarray(row.ids))
    # Where two next to each other are swapped, each stands where the other should.
    ids = np.asarray(row.ids)
    at = np.flatnonzero(text[:-1] & text[1:] & (ids[:-1] != ids[1:]))
    swaps = (found.ids[:, at] == ids[at + 1]) & (found.ids[:, at + 1] == ids[at])
    assert (swaps & moved[:, at] & moved[:, at + 1]).any()


def test_swapped_words_stay_in_their_document(row):
    partner = edit_corruption._next_in_document(row.is_text & row.free, row.segment)
    segment, chosen = np.asarray(row.segment), np.asarray(row.is_text & row.free)
    partner = np.asarray(partner)
    np.testing.assert_array_equal(segment[partner[chosen]], segment[chosen])
    for document in np.unique(segment[chosen]):
        slots = np.flatnonzero(chosen & (segment == document))
        np.testing.assert_array_equal(partner[slots], np.roll(slots, -1))


def test_a_picture_like_the_other_is_not_called_wrong(row):
    """One picture alone, or twice the same: it may be noisy, but never wrong."""
    span, image = np.asarray(row.span), np.asarray(row.is_image)
    first = span == span[image][0]
    same = row.replace(
        latents=jnp.where(image[:, None], jnp.tile(row.latents[first], (24, 1)), row.latents)
    )
    alone = row.replace(kind=jnp.where(jnp.asarray(image & ~first), int(Modality.PAD), row.kind))
    for other in (same, alone):
        found = sample_corruptions(other, 0.4, 100)
        there = np.asarray(other.is_image)
        assert not found.wrong[:, there].any()
        assert abs(found.noisy[:, first].mean() - 0.4) < 0.2


def test_only_where_asked_and_never_in_what_is_given(row):
    where = row.segment == 2
    found = sample_corruption(jax.random.key(1), row, times(row, 0.0), where)
    touched = np.asarray(found.wrong | found.missing | found.noisy)
    assert touched.any()
    assert not touched[~np.asarray(where)].any()
    assert not touched[np.asarray(row.fixed)].any()


@pytest.mark.parametrize("seed", range(6))
def test_putting_everything_right_gives_the_document_back(row, seed):
    wrong, kept, gaps, grown, owner = corrupt_row(jax.random.key(seed), row, 0.5)
    extra = np.asarray(owner) >= 0
    assert extra.any()
    order = np.lexsort((np.asarray(grown.position[:, 0]), np.asarray(grown.segment)))
    first = np.asarray(deletion.item_starts(row)) & np.asarray(kept)
    last = {}  # The gap of a picture is that of its last slot.
    span, image = np.asarray(row.span), np.asarray(row.is_image)
    for slot in np.flatnonzero(first):
        last[slot] = np.flatnonzero(span == span[slot])[-1] if image[slot] else slot
    ids, latents = np.asarray(row.ids), np.asarray(row.latents)
    missing, gap = np.asarray(gaps.missing), np.asarray(gaps.gap)

    def item(slot):
        return latents[slot].tobytes() if image[slot] else int(ids[slot])

    rebuilt, seen = [], 0
    for slot in order:
        if extra[slot]:
            seen += 1  # Deleted.
        elif first[slot]:
            rebuilt.append(item(slot))  # Kept, or replaced by what should be there.
            rebuilt += [item(m) for m in np.flatnonzero(missing & (gap == last[slot]))]
    assert seen == extra.sum()
    assert rebuilt == list_items(row, row.kind != Modality.PAD)
    # What is not wrong already stands there.
    right = first & ~np.asarray(wrong.wrong | wrong.noisy)
    np.testing.assert_array_equal(np.asarray(grown.ids)[right], ids[right])


def test_words_too_many_stand_in_documents_of_their_own(row):
    _, kept, _, grown, owner = corrupt_row(jax.random.key(4), row, 0.5)
    owner = np.asarray(owner)
    segment, order = np.asarray(grown.segment), np.asarray(grown.position[:, 0])
    for slot in np.flatnonzero(owner >= 0):
        assert segment[slot] == segment[owner[slot]]
        assert order[slot] == order[owner[slot]] + 1
    there = np.asarray(deletion.item_starts(grown)) & ((owner >= 0) | np.asarray(kept))
    for document in np.unique(segment[there]):
        at = there & (segment == document)
        np.testing.assert_array_equal(np.sort(order[at]), np.arange(at.sum()))


def test_words_too_many_come_as_often_as_they_should(row):
    padded = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x)]), row)
    anchors = np.asarray(deletion.gaps(padded, padded.kind != Modality.PAD).anchor)
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


def test_where_there_is_no_room_there_is_no_word_too_many(row):
    full = jax.tree.map(lambda x: x[: int((row.kind != Modality.PAD).sum())], row)
    anchors = deletion.gaps(full, full.kind != Modality.PAD).anchor
    grown, owner = edit_corruption.insert_spurious(
        jax.random.key(6), times(full, 0.0), full, anchors, TEXT_ID_RANGE
    )
    assert np.all(np.asarray(owner) == -1)
    jax.tree.map(np.testing.assert_array_equal, grown, full)
