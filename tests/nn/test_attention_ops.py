"""Every way to attend is the definition: values and gradients, on one device and on eight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Attend
from oneflow_jax.nn import attention_mask, attention_ops, blockwise_attention, partitioning
from oneflow_jax.runtime import sharding
from tests.nn import test_attention_mask


def naive(query, key, value, visible):
    """The definition, one query at a time in float64; head h reads key head h // (H / K)."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    rows, slots, heads, width = query.shape
    group = heads // key.shape[2]
    out = np.zeros(query.shape)
    for b, i, h in np.ndindex(rows, slots, heads):
        seen = np.flatnonzero(visible[b, i])
        scores = key[b, seen, h // group] @ query[b, i, h] / np.sqrt(width)
        weights = np.exp(scores - scores.max())
        out[b, i, h] = weights / weights.sum() @ value[b, seen, h // group]
    return out


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    """Several in a row, and the last of them not full."""
    monkeypatch.setattr(blockwise_attention, "BLOCK", 20)


def questions(rows=6, slots=48, heads=6, kv_heads=3, width=8, dtype=jnp.float32):
    """Queries, keys and values; all sizes differ, so that no axis can be taken for another."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(rows, slots, count, width) for count in (heads, kv_heads, kv_heads)]
    drawn = [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]
    return [x.astype(dtype) for x in (2 * drawn[0], 2 * drawn[1], drawn[2])]


def found_and_slopes(way, asked, seen):
    """What is gathered, and the slopes of some function of it."""
    along = jax.random.normal(jax.random.key(1), asked[0].shape)

    def measure(*asked):
        found = attention_ops.attend(*asked, seen, way)
        return jnp.sum(found * along), found

    run = jax.jit(jax.value_and_grad(measure, argnums=(0, 1, 2), has_aux=True))
    (_, found), slopes = run(*asked)
    return [found, *slopes]


@functools.cache
def dense(attend, kv_heads):
    """The reference: all scores at once, which `naive` vouches for."""
    seen = attention_mask.of(test_attention_mask.random_rows(seed=2), attend)
    return found_and_slopes("dense", questions(kv_heads=kv_heads), seen)


def assert_close(found, expected, atol=1e-5):
    for name, one, other in zip(("found", "query", "key", "value"), found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=atol, err_msg=name)


@pytest.mark.parametrize("kv_heads", [6, 3, 1])
def test_all_at_once_is_the_definition(kv_heads):
    asked, seen = (
        questions(kv_heads=kv_heads),
        attention_mask.of(test_attention_mask.random_rows(2), Attend.MIXED),
    )
    expected = naive(*asked, np.asarray(seen.visible()))
    np.testing.assert_allclose(dense(Attend.MIXED, kv_heads)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("way", "attend", "kv_heads"),
    [
        *(("blocks", attend, 3) for attend in Attend),
        ("blocks", Attend.MIXED, 1),
        ("blocks", Attend.MIXED, 6),
        ("splash", Attend.BIDIRECTIONAL, 3),
        ("splash", Attend.CAUSAL, 6),
        ("splash", Attend.MIXED, 3),  # It is `blocks`.
    ],
)
def test_every_way_is_all_at_once(way, attend, kv_heads):
    """The kernel for TPUs is interpreted here."""
    seen = attention_mask.of(test_attention_mask.random_rows(seed=2), attend)
    found = found_and_slopes(way, questions(kv_heads=kv_heads), seen)
    assert_close(found, dense(attend, kv_heads))


@pytest.mark.parametrize("way", ["blocks", "splash"])
def test_after_a_cache(way):
    """Fewer look than are looked at."""
    view = jax.tree.map(lambda x: x[:, :5], test_attention_mask.random_rows(seed=2))
    seen = attention_mask.after(view, jnp.arange(6) * 7, slots=48)
    query, key, value = questions()
    asked = query[:, :5], key, value
    assert_close(found_and_slopes(way, asked, seen), found_and_slopes("dense", asked, seen))


RINGS = [
    ({"sequence": 8}, 6),
    ({"sequence": 2, "data": 4}, 8),
    ({"data": 2, "sequence": 2, "tensor": 2}, 6),
    ({"fsdp": 2, "sequence": 4}, 6),
]


@pytest.mark.parametrize("attend", Attend)
@pytest.mark.parametrize(("sizes", "heads"), RINGS, ids=str)
def test_a_ring_is_all_at_once(sizes, heads, attend):
    view = test_attention_mask.random_rows(seed=2, rows=8)
    seen = attention_mask.of(view, attend)
    asked = questions(rows=8, heads=2 * heads, kv_heads=heads)
    expected = found_and_slopes("dense", asked, seen)
    with sharding.use(sharding.make_mesh({"data": 1} | sizes)):
        assert partitioning.shared_out("slots") == "sequence"
        assert_close(found_and_slopes("dense", asked, seen), expected)
