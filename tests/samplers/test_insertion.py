"""Tests that compare parallel insertion with insertion into a Python list."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Canvas, InsertPolicy, Modality
from oneflow_jax.samplers import insertion

IMAGE = 3
GRID = (2, 2)
LENGTH = 24


def empty_row(insertable=InsertPolicy.ANY, length=LENGTH):
    """Return a row with BOS only."""
    first = jnp.arange(length) == 0
    canvas = Canvas(
        ids=jnp.where(first, 1, 0),
        latents=jnp.zeros((length, 2)),
        modality=jnp.where(first, int(Modality.TEXT), int(Modality.PAD)),
        segment=jnp.where(first, 1, 0),
        span=jnp.where(first, 1, 0),
        position=jnp.zeros((length, 3), int),
        is_given=first,
        insertable=jnp.where(first, int(insertable), 0),
    )
    return insertion.GrowingCanvas(canvas, jnp.zeros(length), jnp.int32(1), jnp.bool_(False))


NOISE = jax.random.normal(jax.random.key(0), (LENGTH, 2))


@jax.jit
def insert_items(row, anchors, ids, run_time):
    noise = NOISE[: anchors.shape[0]]
    return insertion.insert(
        row, anchors, ids, image_token_id=IMAGE, grid=GRID, noise=noise, run_time=run_time
    )


def list_items(row):
    """List the items in order: (slot of the item's gap, token or 'image')."""
    kind, order = np.asarray(row.canvas.modality), np.asarray(row.canvas.position[:, 0])
    items = []
    for number in range(order.max() + 1):
        at = np.flatnonzero((kind != Modality.PAD) & (order == number))
        if kind[at[0]] == Modality.TEXT:
            assert len(at) == 1
            items.append((at[0], int(row.canvas.ids[at[0]])))
        else:
            assert len(at) == GRID[0] * GRID[1]
            grid = np.asarray(row.canvas.position[at, 1:]).tolist()
            assert grid == [[0, 0], [0, 1], [1, 0], [1, 1]]
            assert len(set(np.asarray(row.canvas.span)[at].tolist())) == 1
            items.append((at[-1], "image"))
    assert sum(1 if item != "image" else 4 for _, item in items) == int(row.num_used)
    return items


@pytest.mark.parametrize("seed", range(6))
def test_items_are_inserted_after_their_anchors(seed):
    rng = np.random.default_rng(seed)
    row, model, full = empty_row(), [(0, 1)], False
    for _ in range(5):
        choices = {
            slot: int(rng.choice([IMAGE, 6, 7, 8], p=[0.2, 0.3, 0.3, 0.2])) for slot, _ in model
        }
        chosen = {slot for slot, _ in model if rng.random() < 0.5}
        selected, ids = np.zeros(LENGTH, bool), np.zeros(LENGTH, int)
        for slot in chosen:
            selected[slot], ids[slot] = True, choices[slot]
        # Items take slots in order; after the first item that does not fit, no item is inserted.
        used, fits = int(row.num_used), set()
        for slot in sorted(chosen):
            used += 4 if choices[slot] == IMAGE else 1
            fits |= {slot} if used <= LENGTH else set()
            full |= used > LENGTH
        row = insert_items(row, jnp.asarray(selected), jnp.asarray(ids), jnp.float32(0.5))
        expected = []
        for slot, item in model:
            expected.append(item)
            if slot in fits:
                expected.append("image" if choices[slot] == IMAGE else choices[slot])
        model = list_items(row)
        assert [item for _, item in model] == expected
        assert bool(row.truncated) == full


def test_inserted_image_is_noise_with_its_start_time():
    selected = jnp.arange(LENGTH) == 0
    row = insert_items(empty_row(), selected, jnp.full(LENGTH, IMAGE), jnp.float32(0.25))
    at = slice(1, 5)
    np.testing.assert_array_equal(row.canvas.latents[at], NOISE[at])
    np.testing.assert_array_equal(row.image_start_time[at], 0.25)
    np.testing.assert_array_equal(row.canvas.insertable[:6], [2, 0, 0, 0, 2, 0])
    assert not row.canvas.is_given[at].any()


def test_inserted_token_inherits_the_insert_policy():
    selected = jnp.arange(LENGTH) == 0
    row = insert_items(
        empty_row(InsertPolicy.TEXT), selected, jnp.full(LENGTH, 7), jnp.float32(0.25)
    )
    np.testing.assert_array_equal(row.canvas.insertable[:3], [1, 1, 0])


def test_no_insertion_changes_nothing():
    row = empty_row()
    same = insert_items(row, jnp.zeros(LENGTH, bool), jnp.zeros(LENGTH, int), jnp.float32(0.5))
    for before, after in zip(jax.tree.leaves(row), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(before, after)


def test_full_canvas_inserts_an_image_completely_or_not():
    row = empty_row(length=4)
    selected = jnp.arange(4) == 0
    refused = insert_items(row, selected, jnp.full(4, IMAGE), jnp.float32(0.5))
    assert bool(refused.truncated)
    jax.tree.map(np.testing.assert_array_equal, refused.canvas, row.canvas)
    word = insert_items(row, selected, jnp.full(4, 7), jnp.float32(0.5))
    assert not bool(word.truncated)
    assert [item for _, item in list_items(word)] == [1, 7]
