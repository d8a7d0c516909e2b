import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.nn import attention


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


@pytest.mark.parametrize("kv_heads", [6, 3, 1])
def test_attend_matches_naive(kv_heads):
    # All sizes differ, so that no two axes can be taken for one another.
    rows, slots, heads, width = 2, 5, 6, 8
    keys = jax.random.split(jax.random.key(0), 4)
    query = 2 * jax.random.normal(keys[0], (rows, slots, heads, width))
    key = 2 * jax.random.normal(keys[1], (rows, slots, kv_heads, width))
    value = jax.random.normal(keys[2], (rows, slots, kv_heads, width))
    visible = jax.random.bernoulli(keys[3], 0.5, (rows, slots, slots))
    visible |= jnp.eye(slots, dtype=bool)[None]
    np.testing.assert_allclose(
        attention.attend(query, key, value, visible),
        naive(query, key, value, np.asarray(visible)),
        atol=1e-5,
    )


def test_documents_see_themselves_in_both_directions_and_nothing_else():
    visible = attention.same_document(jnp.array([[1, 1, 2, 0]]))
    np.testing.assert_array_equal(
        visible[0],
        [
            [True, True, False, False],
            [True, True, False, False],
            [False, False, True, False],
            [False, False, False, True],
        ],
    )
