"""Tests of attention implementations: values and gradients, on one device and on eight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.nn import attention_mask, attention_ops, blockwise_attention, partitioning
from oneflow_jax.runtime import sharding
from tests.nn import test_attention_mask


def naive_attention(query, key, value, mask):
    """Compute attention query by query in float64; query head h uses key head h // (H / K)."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    rows, slots, heads, width = query.shape
    group = heads // key.shape[2]
    out = np.zeros(query.shape)
    for b, i, h in np.ndindex(rows, slots, heads):
        visible = np.flatnonzero(mask[b, i])
        scores = key[b, visible, h // group] @ query[b, i, h] / np.sqrt(width)
        weights = np.exp(scores - scores.max())
        out[b, i, h] = weights / weights.sum() @ value[b, visible, h // group]
    return out


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    """Use short key blocks, so that a row has several blocks and the last one is partial."""
    monkeypatch.setattr(blockwise_attention, "BLOCK_K", 20)


def random_qkv(batch_size=6, num_slots=48, heads=6, kv_heads=3, width=8, dtype=jnp.float32):
    """Return queries, keys and values; neighboring axes differ in size, so that the tests detect
    confused axes."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(batch_size, num_slots, count, width) for count in (heads, kv_heads, kv_heads)]
    normals = [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]
    return [x.astype(dtype) for x in (2 * normals[0], 2 * normals[1], normals[2])]


def output_and_gradients(implementation, qkv, mask):
    """Return the output, and the gradients of a random projection of the output."""
    direction = jax.random.normal(jax.random.key(1), qkv[0].shape)

    def loss_and_output(*arrays):
        output = attention_ops.dot_product_attention(*arrays, mask, implementation)
        return jnp.sum(output * direction), output

    run = jax.jit(jax.value_and_grad(loss_and_output, argnums=(0, 1, 2), has_aux=True))
    (_, output), gradients = run(*qkv)
    return [output, *gradients]


@functools.cache
def xla_reference(pattern, kv_heads):
    """Return the result of "xla", which another test compares with `naive_attention`."""
    mask = attention_mask.from_canvas(test_attention_mask.random_view(seed=2), pattern)
    return output_and_gradients("xla", random_qkv(kv_heads=kv_heads), mask)


def assert_close(actual, expected, atol=1e-5):
    for name, a, b in zip(("found", "query", "key", "value"), actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=atol, err_msg=name)


@pytest.mark.parametrize("kv_heads", [6, 3, 1])
def test_xla_attention_matches_naive_attention(kv_heads):
    qkv, mask = (
        random_qkv(kv_heads=kv_heads),
        attention_mask.from_canvas(test_attention_mask.random_view(2), AttentionPattern.MIXED),
    )
    expected = naive_attention(*qkv, np.asarray(mask.materialize()))
    np.testing.assert_allclose(
        xla_reference(AttentionPattern.MIXED, kv_heads)[0], expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("way", "attend", "kv_heads"),
    [
        *(("blockwise", attend, 3) for attend in AttentionPattern),
        ("blockwise", AttentionPattern.MIXED, 1),
        ("blockwise", AttentionPattern.MIXED, 6),
        ("splash", AttentionPattern.BIDIRECTIONAL, 3),
        ("splash", AttentionPattern.CAUSAL, 6),
        ("splash", AttentionPattern.MIXED, 3),  # Splash falls back to `blockwise` here.
    ],
)
def test_every_implementation_matches_xla_attention(way, attend, kv_heads):
    """Check every implementation against "xla"; the TPU kernel runs in interpret mode."""
    mask = attention_mask.from_canvas(test_attention_mask.random_view(seed=2), attend)
    actual = output_and_gradients(way, random_qkv(kv_heads=kv_heads), mask)
    assert_close(actual, xla_reference(attend, kv_heads))


@pytest.mark.parametrize("way", ["blockwise", "splash"])
def test_fewer_queries_than_keys_match_xla_attention(way):
    """Check masks with fewer queries than keys, as in decoding with a cache."""
    view = jax.tree.map(lambda x: x[:, :5], test_attention_mask.random_view(seed=2))
    mask = attention_mask.for_decode(view, jnp.arange(6) * 7, num_keys=48)
    query, key, value = random_qkv()
    qkv = query[:, :5], key, value
    assert_close(output_and_gradients(way, qkv, mask), output_and_gradients("xla", qkv, mask))


RINGS = [
    ({"context": 8}, 6),
    ({"context": 2, "data": 4}, 8),
    ({"data": 2, "context": 2, "tensor": 2}, 6),
    ({"fsdp": 2, "context": 4}, 6),
]


@pytest.mark.parametrize("attend", AttentionPattern)
@pytest.mark.parametrize(("sizes", "heads"), RINGS, ids=str)
def test_ring_attention_matches_xla_attention(sizes, heads, attend):
    view = test_attention_mask.random_view(seed=2, batch_size=8)
    mask = attention_mask.from_canvas(view, attend)
    qkv = random_qkv(batch_size=8, heads=2 * heads, kv_heads=heads)
    expected = output_and_gradients("xla", qkv, mask)
    with sharding.mesh_context(sharding.make_mesh({"data": 1} | sizes)):
        assert partitioning.sharded_axis("slots") == "context"
        assert_close(output_and_gradients("xla", qkv, mask), expected)
