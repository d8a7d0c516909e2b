"""Tests of the KV cache: decoding slot by slot equals one full forward pass."""

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
    """Return interleaved documents of different lengths."""
    lay = dataclasses.replace(tiny.make_layout(NUM_SLOTS, 0), has_markers=True)
    fitting = [
        row for row in map(lay.row, toy.Toy(documents=20)) if len(row["modality"]) <= NUM_SLOTS
    ]
    lengths = [len(row["modality"]) for row in fitting[:3]]
    assert len(set(lengths)) > 1
    return jax.tree.map(jnp.asarray, lay.canvas(fitting[:3])), np.array(lengths)


@functools.cache
def make_model(pattern, **changes):
    """Return the model with other values of its `TransformerConfig`."""
    size = dataclasses.replace(tiny.TRANSFORMER_CONFIG, **changes)
    model = dataclasses.replace(tiny.network(), attention_pattern=pattern, config=size)
    return bound_model.BoundModel(model, tiny.parameters(tiny.network()))


def slice_slots(view, start, count):
    """Return `count` slots of each row, beginning at the row's `start`."""
    at = jnp.asarray(start)[:, None] + jnp.arange(count)[None]
    return jax.tree.map(lambda x: jax.vmap(lambda row, i: row[i])(x, at), view)


def decode_chunks(modality, span, pattern):
    """Yield (first slot, length) of each step: one token or code; with MIXED, also one image."""
    slot = 0
    while slot < len(modality) and modality[slot] != Modality.PAD:
        count = 1
        if pattern is AttentionPattern.MIXED and modality[slot] == Modality.IMAGE:
            count = int(np.sum(span == span[slot]))
        yield slot, count
        slot += count


LOCAL = {"layers": 2, "sliding_window": 12, "global_every": 2, "rope_local_theta": 100.0}
"""Values of a network whose first layer is local."""


@pytest.mark.parametrize(
    ("attend", "changes"),
    [
        (AttentionPattern.CAUSAL, {}),
        (AttentionPattern.MIXED, {}),
        (AttentionPattern.MIXED, LOCAL),
    ],
)
def test_decoding_slot_by_slot_equals_a_full_forward_pass(attend, changes):
    canvas, lengths = make_canvas()
    view, net = tiny.noisy_canvas(canvas), make_model(attend, **changes)
    whole = jax.jit(net)(view)
    after = jax.jit(net.decode)
    for row, length in enumerate(lengths):
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], view)
        cache, chunk_outputs = net.init_cache(1, NUM_SLOTS + 8), []
        kind, span = np.asarray(canvas.modality[row]), np.asarray(canvas.span[row])
        for first, count in decode_chunks(kind, span, attend):
            outputs, cache = after(slice_slots(one, [first], count), cache)
            cache = cache.advance(jnp.array([count]))
            chunk_outputs.append(outputs)
        for name, expected in whole.items():
            actual = np.concatenate([outputs[name][0] for outputs in chunk_outputs])
            np.testing.assert_allclose(actual, expected[row, :length], atol=1e-5)


@pytest.mark.parametrize("attend", [AttentionPattern.CAUSAL, AttentionPattern.MIXED])
def test_prefill_of_different_lengths_equals_a_full_forward_pass(attend):
    """Check a prefill of prompts with different lengths: entries after a prompt stay masked."""
    canvas, lengths = make_canvas()
    view, net = tiny.noisy_canvas(canvas), make_model(attend)
    last = jnp.asarray(lengths - 1)  # Slots of <end>.
    outputs, cache = jax.jit(net.prefill)(view, net.init_cache(len(lengths), NUM_SLOTS + 8))
    for name, expected in jax.jit(net)(view).items():
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5)
    cache = cache.advance(last)
    outputs, _ = net.decode(slice_slots(view, last, 1), cache)
    for name, expected in jax.jit(net)(view).items():
        expected_last = expected[jnp.arange(len(lengths)), last]
        np.testing.assert_allclose(outputs[name][:, 0], expected_last, atol=1e-5)


def test_entries_past_the_cache_length_are_overwritten():
    """Check that entries past the cache's length are overwritten.

    The forward passes of an image's flow write such entries until the image is finished.
    """
    canvas, lengths = make_canvas()
    view, net = tiny.noisy_canvas(canvas), make_model(AttentionPattern.MIXED)
    _, cache = jax.jit(net.prefill)(view, net.init_cache(len(lengths), NUM_SLOTS + 8))
    cache = cache.advance(jnp.array([3, 4, 5]))
    token = slice_slots(view, [3, 4, 5], 1)
    expected, _ = net.decode(token, cache)
    _, dirty = net.decode(slice_slots(tiny.noisy_canvas(canvas, seed=7), [3, 4, 5], 4), cache)
    actual, _ = net.decode(token, dirty)
    for name, values in expected.items():
        np.testing.assert_array_equal(actual[name], values)
