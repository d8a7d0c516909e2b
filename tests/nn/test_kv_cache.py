"""What comes slot by slot, with a cache, is what comes all at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import AttentionPattern, Modality
from oneflow_jax.data import toy
from oneflow_jax.nn import bound_model
from tests import tiny

NUM_SLOTS = 40


def make_canvas():
    """Documents of different lengths, with words and pictures between them."""
    lay = dataclasses.replace(tiny.make_layout(NUM_SLOTS, 0), markers=True)
    fitting = [row for row in map(lay.row, toy.Toy(documents=20)) if len(row["kind"]) <= NUM_SLOTS]
    lengths = [len(row["kind"]) for row in fitting[:3]]
    assert len(set(lengths)) > 1
    return jax.tree.map(jnp.asarray, lay.canvas(fitting[:3])), np.array(lengths)


@functools.cache
def make_model(pattern):
    model = dataclasses.replace(tiny.network(), attend=pattern)
    return bound_model.BoundModel(model, tiny.parameters(tiny.network()))


def slice_slots(view, start, count):
    """Slots of each row from its `start` on."""
    at = jnp.asarray(start)[:, None] + jnp.arange(count)[None]
    return jax.tree.map(lambda x: jax.vmap(lambda row, i: row[i])(x, at), view)


def decode_chunks(modality, span, pattern):
    """First slot and length of what comes at once: words and codes one by one, pictures whole."""
    slot = 0
    while slot < len(modality) and modality[slot] != Modality.PAD:
        count = 1
        if pattern is AttentionPattern.MIXED and modality[slot] == Modality.IMAGE:
            count = int(np.sum(span == span[slot]))
        yield slot, count
        slot += count


@pytest.mark.parametrize("attend", [AttentionPattern.CAUSAL, AttentionPattern.MIXED])
def test_slot_by_slot_is_all_at_once(attend):
    shown, lengths = make_canvas()
    view, net = tiny.noisy_canvas(shown), make_model(attend)
    whole = jax.jit(net)(view)
    after = jax.jit(net.after)
    for row, length in enumerate(lengths):
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], view)
        cache, told = net.cache(1, NUM_SLOTS + 8), []
        kind, span = np.asarray(shown.kind[row]), np.asarray(shown.span[row])
        for first, count in decode_chunks(kind, span, attend):
            outputs, cache = after(slice_slots(one, [first], count), cache)
            cache = cache.advanced(jnp.array([count]))
            told.append(outputs)
        for name, expected in whole.items():
            made = np.concatenate([outputs[name][0] for outputs in told])
            np.testing.assert_allclose(made, expected[row, :length], atol=1e-5)


@pytest.mark.parametrize("attend", [AttentionPattern.CAUSAL, AttentionPattern.MIXED])
def test_rows_with_beginnings_of_different_lengths(attend):
    """All beginnings are read at once; what lies beyond them in the cache is never seen."""
    shown, lengths = make_canvas()
    view, net = tiny.noisy_canvas(shown), make_model(attend)
    last = jnp.asarray(lengths - 1)  # <end>, a word
    outputs, cache = jax.jit(net.prefill)(view, net.cache(len(lengths), NUM_SLOTS + 8))
    for name, expected in jax.jit(net)(view).items():
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5)
    cache = cache.advanced(last)
    outputs, _ = net.after(slice_slots(view, last, 1), cache)
    for name, expected in jax.jit(net)(view).items():
        made = expected[jnp.arange(len(lengths)), last]
        np.testing.assert_allclose(outputs[name][:, 0], made, atol=1e-5)


def test_what_is_not_counted_is_overwritten():
    """As the passes of a picture's flow are, until it is finished."""
    shown, lengths = make_canvas()
    view, net = tiny.noisy_canvas(shown), make_model(AttentionPattern.MIXED)
    _, cache = jax.jit(net.prefill)(view, net.cache(len(lengths), NUM_SLOTS + 8))
    cache = cache.advanced(jnp.array([3, 4, 5]))
    token = slice_slots(view, [3, 4, 5], 1)
    expected, _ = net.after(token, cache)
    _, dirty = net.after(slice_slots(tiny.noisy_canvas(shown, seed=7), [3, 4, 5], 4), cache)
    made, _ = net.after(token, dirty)
    for name, values in expected.items():
        np.testing.assert_array_equal(made[name], values)
