import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Attend, Kind
from oneflow_jax.data import toy
from oneflow_jax.nn import attention
from tests import tiny


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


def seen_by_definition(view, attend):
    """Slot by slot, from the definition."""
    kind, segment, order = (
        np.asarray(x)[0] for x in (view.kind, view.segment, view.position[..., 0])
    )

    def sees(i, j):
        if segment[i] != segment[j]:
            return False
        picture = kind[i] == kind[j] == Kind.IMAGE and order[i] == order[j]
        before = j <= i
        return {
            Attend.BIDIRECTIONAL: True,
            Attend.CAUSAL: before,
            Attend.MIXED: before or picture,
        }[attend]

    slots = range(len(kind))
    return [[sees(i, j) for j in slots] for i in slots]


@pytest.mark.parametrize("attend", Attend)
def test_who_sees_whom(attend):
    """Packed documents with pictures side by side, and empty slots."""
    documents = [item for item in toy.Toy(documents=12) if len(item.pictures()) > 1][:2]
    lay = dataclasses.replace(tiny.layout_of(64, 0), markers=True)
    rows = [lay.row(item) for item in documents]
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    segment = np.repeat([1, 2], [len(row["kind"]) for row in rows])
    canvas = lay.canvas([joined])
    segment = np.pad(segment, (0, 64 - len(segment)))[None]
    view = tiny.noisy_view(canvas).replace(segment=segment)
    expected = np.array(seen_by_definition(view, attend))
    np.testing.assert_array_equal(attention.visible(view, attend)[0], expected)
    assert expected.sum() < expected.size


def test_documents_see_themselves_in_both_directions_and_nothing_else():
    view = jax.tree.map(lambda x: x[:, :4], tiny.noisy_view(tiny.rows_of(tiny.captions(1))))
    view = view.replace(segment=jnp.array([[1, 1, 2, 0]]))
    visible = attention.visible(view, Attend.BIDIRECTIONAL)
    np.testing.assert_array_equal(
        visible[0],
        [
            [True, True, False, False],
            [True, True, False, False],
            [False, False, True, False],
            [False, False, False, True],
        ],
    )
