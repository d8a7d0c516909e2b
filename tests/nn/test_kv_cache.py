"""What comes slot by slot, with a cache, is what comes all at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Attend, Kind
from oneflow_jax.data import toy
from oneflow_jax.nn import bound_model
from tests import tiny

SLOTS = 40


def canvas():
    """Documents of different lengths, with words and pictures between them."""
    lay = dataclasses.replace(tiny.layout_of(SLOTS, 0), markers=True)
    fitting = [row for row in map(lay.row, toy.Toy(documents=20)) if len(row["kind"]) <= SLOTS]
    lengths = [len(row["kind"]) for row in fitting[:3]]
    assert len(set(lengths)) > 1
    return jax.tree.map(jnp.asarray, lay.canvas(fitting[:3])), np.array(lengths)


@functools.cache
def network(attend):
    model = dataclasses.replace(tiny.network(), attend=attend)
    return bound_model.Bound(model, tiny.parameters(tiny.network()))


def cut(view, first, count):
    """Slots of each row from its `first` on."""
    at = jnp.asarray(first)[:, None] + jnp.arange(count)[None]
    return jax.tree.map(lambda x: jax.vmap(lambda row, i: row[i])(x, at), view)


def pieces(kind, span, attend):
    """First slot and length of what comes at once: words and codes one by one, pictures whole."""
    slot = 0
    while slot < len(kind) and kind[slot] != Kind.PAD:
        count = 1
        if attend is Attend.MIXED and kind[slot] == Kind.IMAGE:
            count = int(np.sum(span == span[slot]))
        yield slot, count
        slot += count


@pytest.mark.parametrize("attend", [Attend.CAUSAL, Attend.MIXED])
def test_slot_by_slot_is_all_at_once(attend):
    shown, lengths = canvas()
    view, net = tiny.noisy_view(shown), network(attend)
    whole = jax.jit(net)(view)
    after = jax.jit(net.after)
    for row, length in enumerate(lengths):
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], view)
        cache, told = net.cache(1, SLOTS + 8), []
        kind, span = np.asarray(shown.kind[row]), np.asarray(shown.span[row])
        for first, count in pieces(kind, span, attend):
            outputs, cache = after(cut(one, [first], count), cache)
            cache = cache.advanced(jnp.array([count]))
            told.append(outputs)
        for name, expected in whole.items():
            made = np.concatenate([outputs[name][0] for outputs in told])
            np.testing.assert_allclose(made, expected[row, :length], atol=1e-5)


@pytest.mark.parametrize("attend", [Attend.CAUSAL, Attend.MIXED])
def test_rows_with_beginnings_of_different_lengths(attend):
    """All beginnings are read at once; what lies beyond them in the cache is never seen."""
    shown, lengths = canvas()
    view, net = tiny.noisy_view(shown), network(attend)
    last = jnp.asarray(lengths - 1)  # <end>, a word
    outputs, cache = jax.jit(net.prefill)(view, net.cache(len(lengths), SLOTS + 8))
    for name, expected in jax.jit(net)(view).items():
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5)
    cache = cache.advanced(last)
    outputs, _ = net.after(cut(view, last, 1), cache)
    for name, expected in jax.jit(net)(view).items():
        made = expected[jnp.arange(len(lengths)), last]
        np.testing.assert_allclose(outputs[name][:, 0], made, atol=1e-5)


def test_what_is_not_counted_is_overwritten():
    """As the passes of a picture's flow are, until it is finished."""
    shown, lengths = canvas()
    view, net = tiny.noisy_view(shown), network(Attend.MIXED)
    _, cache = jax.jit(net.prefill)(view, net.cache(len(lengths), SLOTS + 8))
    cache = cache.advanced(jnp.array([3, 4, 5]))
    token = cut(view, [3, 4, 5], 1)
    expected, _ = net.after(token, cache)
    _, dirty = net.after(cut(tiny.noisy_view(shown, seed=7), [3, 4, 5], 4), cache)
    made, _ = net.after(token, dirty)
    for name, values in expected.items():
        np.testing.assert_array_equal(made[name], values)
