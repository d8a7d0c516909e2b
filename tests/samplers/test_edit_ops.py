"""Tests of deletions and substitutions: they change the selected items only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import InsertPolicy, Modality
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.flows.edit_corruption import EditOp
from oneflow_jax.samplers import edit_ops, insertion
from tests import tiny

LENGTH = 24
NOISE = jax.random.normal(jax.random.key(2), (LENGTH, tiny.CODEC.channels))


@pytest.fixture(scope="module")
def row():
    """Return a finished row of text, image, text and image, with free slots at the end."""
    lay = tiny.make_layout(length=LENGTH, text_slots=0)
    pixels = [np.full((4, 4, 3), shade, np.uint8) for shade in (50, 200)]
    document = Document((Text("a red"), Image(pixels[0]), Text("blue"), Image(pixels[1])))
    canvas = jax.tree.map(lambda x: jnp.asarray(x[0]), lay.canvas([lay.row(document)]))
    return insertion.from_document(canvas)


def remaining_slots(row, slots):
    return [
        slot
        for slot in range(LENGTH)
        if int(row.canvas.modality[slot]) != Modality.PAD and slot not in slots
    ]


def apply_ops(row, ops, ids=9, run_time=0.75):
    fate = jnp.zeros(LENGTH, int)
    for slot, one in ops.items():
        fate = fate.at[slot].set(int(one))
    return edit_ops.apply_edit_ops(
        row, fate, jnp.full(LENGTH, ids), noise=NOISE, run_time=jnp.float32(run_time)
    )


def test_document_to_edit_is_clean_and_insertable_everywhere(row):
    np.testing.assert_array_equal(row.slot_times(jnp.float32(0.5)), np.ones(LENGTH))
    opening = np.asarray(row.canvas.insertable)
    text = np.asarray(row.canvas.is_text)
    assert np.all(opening[text] == InsertPolicy.ANY)
    assert (opening[np.asarray(row.canvas.is_image)] == InsertPolicy.ANY).sum() == 2


def test_deletion_removes_a_token_and_renumbers(row):
    gone = apply_ops(row, {2: EditOp.DELETE})
    assert int(gone.canvas.modality[2]) == Modality.PAD
    assert int(gone.canvas.insertable[2]) == InsertPolicy.NONE
    order = np.asarray(gone.canvas.position[:, 0])
    slots = remaining_slots(row, {2})
    before = np.asarray(row.canvas.position[:, 0])
    np.testing.assert_array_equal(order[slots], before[slots] - (before[slots] > before[2]))
    for name in ("ids", "latents", "modality", "segment"):
        np.testing.assert_array_equal(
            np.asarray(getattr(gone.canvas, name))[slots],
            np.asarray(getattr(row.canvas, name))[slots],
        )
    assert int(gone.num_used) == int(row.num_used)  # The deleted item's slot is not reused.


def test_substituted_token_changes_in_place(row):
    changed = apply_ops(row, {1: EditOp.SUBSTITUTE}, ids=77)
    np.testing.assert_array_equal(changed.canvas.ids, row.canvas.ids.at[1].set(77))
    np.testing.assert_array_equal(changed.canvas.position, row.canvas.position)


def test_substituted_image_becomes_noise_with_its_own_time(row):
    first = np.flatnonzero(np.asarray(row.canvas.is_image))[:4]
    anew = apply_ops(row, dict.fromkeys(first.tolist(), EditOp.SUBSTITUTE), run_time=0.75)
    np.testing.assert_array_equal(np.asarray(anew.canvas.latents)[first], NOISE[first])
    clock = np.asarray(anew.slot_times(jnp.float32(1.0)))
    np.testing.assert_allclose(clock[first], 0.25)
    assert np.all(np.delete(clock, first) == 1)
    np.testing.assert_array_equal(anew.canvas.ids, row.canvas.ids)


def test_keeping_all_changes_nothing(row):
    for before, after in zip(
        jax.tree.leaves(row), jax.tree.leaves(apply_ops(row, {})), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def sample_ops(row, logits, step_fraction, editable=True, count=4000):
    keys = jax.random.split(jax.random.key(8), count)
    sampled = jax.vmap(
        lambda key: edit_ops.sample_edit_ops(
            key, logits, jnp.float32(step_fraction), jnp.full(LENGTH, editable), row.canvas
        )
    )
    return np.asarray(sampled(keys))


def test_edit_operations_have_their_expected_rates(row):
    odds = jnp.tile(jnp.log(jnp.array([0.5, 0.2, 0.3])), (LENGTH, 1))
    fate = sample_ops(row, odds, step_fraction=0.5)[:, 1]
    for which, expected in ((EditOp.DELETE, 0.1), (EditOp.SUBSTITUTE, 0.15), (EditOp.KEEP, 0.75)):
        share = np.mean(fate == which)
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / len(fate))
    assert not sample_ops(row, odds, step_fraction=0.5, editable=False, count=50).any()


def test_image_gets_one_edit_operation_and_is_never_deleted(row):
    odds = jnp.tile(jnp.log(jnp.array([0.2, 0.5, 0.3])), (LENGTH, 1))
    last = np.flatnonzero(np.asarray(row.canvas.is_image))[3]
    # Only the last slot of the image has logits that favor a substitution.
    odds = odds.at[: int(last)].set(jnp.array([0.0, -9.0, -9.0]))
    fate = sample_ops(row, odds, step_fraction=1.0)[:, last - 3 : last + 1]
    assert np.all(fate == fate[:, :1])
    assert not np.any(fate == EditOp.DELETE)
    share = np.mean(fate[:, 0] == EditOp.SUBSTITUTE)
    assert abs(share - 0.6) < 4 * np.sqrt(0.24 / len(fate))
