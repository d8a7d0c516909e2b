"""Every way to attend is the definition: values and gradients, on one device and on eight."""

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
    """The definition, one query at a time in float64; head h reads key head h // (H / K)."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    rows, slots, heads, width = query.shape
    group = heads // key.shape[2]
    out = np.zeros(query.shape)
    for b, i, h in np.ndindex(rows, slots, heads):
        seen = np.flatnonzero(mask[b, i])
        scores = key[b, seen, h // group] @ query[b, i, h] / np.sqrt(width)
        weights = np.exp(scores - scores.max())
        out[b, i, h] = weights / weights.sum() @ value[b, seen, h // group]
    return out


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    """Several in a row, and the last of them not full."""
    monkeypatch.setattr(blockwise_attention, "BLOCK_K", 20)


def random_qkv(batch_size=6, num_slots=48, heads=6, kv_heads=3, width=8, dtype=jnp.float32):
    """Queries, keys and values; all sizes differ, so that no axis can be taken for another."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(batch_size, num_slots, count, width) for count in (heads, kv_heads, kv_heads)]
    drawn = [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]
    return [x.astype(dtype) for x in (2 * drawn[0], 2 * drawn[1], drawn[2])]


def output_and_gradients(implementation, qkv, mask):
    """What is gathered, and the slopes of some function of it."""
    along = jax.random.normal(jax.random.key(1), qkv[0].shape)

    def measure(*asked):
        found = attention_ops.dot_product_attention(*asked, mask, implementation)
        return jnp.sum(found * along), found

    run = jax.jit(jax.value_and_grad(measure, argnums=(0, 1, 2), has_aux=True))
    (_, found), slopes = run(*qkv)
    return [found, *slopes]


@functools.cache
def xla_reference(pattern, kv_heads):
    """The reference: all scores at once, which `naive_attention` vouches for."""
    seen = attention_mask.from_canvas(test_attention_mask.random_view(seed=2), pattern)
    return output_and_gradients("dense", random_qkv(kv_heads=kv_heads), seen)


def assert_close(actual, expected, atol=1e-5):
    for name, one, other in zip(("found", "query", "key", "value"), actual, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=atol, err_msg=name)


@pytest.mark.parametrize("kv_heads", [6, 3, 1])
def test_all_at_once_is_the_definition(kv_heads):
    asked, seen = (
        random_qkv(kv_heads=kv_heads),
        attention_mask.from_canvas(test_attention_mask.random_view(2), AttentionPattern.MIXED),
    )
    expected = naive_attention(*asked, np.asarray(seen.visible()))
    np.testing.assert_allclose(
        xla_reference(AttentionPattern.MIXED, kv_heads)[0], expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("way", "attend", "kv_heads"),
    [
        *(("blocks", attend, 3) for attend in AttentionPattern),
        ("blocks", AttentionPattern.MIXED, 1),
        ("blocks", AttentionPattern.MIXED, 6),
        ("splash", AttentionPattern.BIDIRECTIONAL, 3),
        ("splash", AttentionPattern.CAUSAL, 6),
        ("splash", AttentionPattern.MIXED, 3),  # It is `blocks`.
    ],
)
def test_every_way_is_all_at_once(way, attend, kv_heads):
    """The kernel for TPUs is interpreted here."""
    seen = attention_mask.from_canvas(test_attention_mask.random_view(seed=2), attend)
    found = output_and_gradients(way, random_qkv(kv_heads=kv_heads), seen)
    assert_close(found, xla_reference(attend, kv_heads))


@pytest.mark.parametrize("way", ["blocks", "splash"])
def test_after_a_cache(way):
    """Fewer look than are looked at."""
    view = jax.tree.map(lambda x: x[:, :5], test_attention_mask.random_view(seed=2))
    seen = attention_mask.for_decode(view, jnp.arange(6) * 7, num_keys=48)
    query, key, value = random_qkv()
    asked = query[:, :5], key, value
    assert_close(output_and_gradients(way, asked, seen), output_and_gradients("dense", asked, seen))


RINGS = [
    ({"sequence": 8}, 6),
    ({"sequence": 2, "data": 4}, 8),
    ({"data": 2, "sequence": 2, "tensor": 2}, 6),
    ({"fsdp": 2, "sequence": 4}, 6),
]


@pytest.mark.parametrize("attend", AttentionPattern)
@pytest.mark.parametrize(("sizes", "heads"), RINGS, ids=str)
def test_a_ring_is_all_at_once(sizes, heads, attend):
    view = test_attention_mask.random_view(seed=2, batch_size=8)
    seen = attention_mask.from_canvas(view, attend)
    asked = random_qkv(batch_size=8, heads=2 * heads, kv_heads=heads)
    expected = output_and_gradients("dense", asked, seen)
    with sharding.mesh_context(sharding.make_mesh({"data": 1} | sizes)):
        assert partitioning.sharded_axis("slots") == "sequence"
        assert_close(output_and_gradients("dense", asked, seen), expected)
