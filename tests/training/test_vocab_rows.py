"""Tests of the rows of a vocabulary that grows."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.training import vocab_rows

SPLITS = [(6, 8), (), (7,)]


def make_plan(old_size=16, size=24, num_codes=4):
    return vocab_rows.plan_rows(
        SPLITS, num_text=10, num_codes=num_codes, old_size=old_size, size=size, seed=3
    )


def extend(rows, plan, axis=0):
    like = {"rows": jnp.asarray(rows), "scale": jnp.ones(3)}
    out = vocab_rows.extend_rows(like, {"rows": axis, "scale": -1}, plan)
    assert out["scale"] is like["scale"]
    return np.asarray(out["rows"])


def test_rows_of_every_kind_of_id():
    old = np.random.default_rng(0).standard_normal((16, 5)).astype(np.float32)
    new = extend(old, make_plan())
    np.testing.assert_array_equal(new[:10], old[:10])  # text
    np.testing.assert_allclose(new[10], (old[6] + old[8]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(new[12], old[7])
    np.testing.assert_array_equal(new[13:17], old[10:14])  # image codes
    np.testing.assert_allclose(new[17:], np.tile(old[14:].mean(0), (7, 1)), rtol=1e-6)  # padding
    noise = new[11] - old[:10].mean(0)
    assert 0 < np.abs(noise).max() < 5 * vocab_rows.NOISE * old.std()


def test_padding_without_old_padding_is_the_mean_of_text():
    old = np.random.default_rng(0).standard_normal((10, 5)).astype(np.float32)
    new = extend(old, make_plan(old_size=10, size=14, num_codes=0))
    np.testing.assert_allclose(new[13], old.mean(0), rtol=1e-5, atol=1e-6)


def test_any_axis_and_the_seed():
    old = np.random.default_rng(0).standard_normal((16, 5)).astype(np.float32)
    plan = make_plan()
    np.testing.assert_array_equal(extend(old.T, plan, axis=1).T, extend(old, plan))
    other = vocab_rows.plan_rows(SPLITS, num_text=10, num_codes=4, old_size=16, size=24, seed=4)
    differs = np.any(extend(old, plan) != extend(old, other), axis=1)
    assert list(np.flatnonzero(differs)) == [11]


@pytest.mark.parametrize(("names", "axis"), [(("vocab", "embed"), 0), (("width", "vocab"), 1)])
def test_vocabulary_axes_are_found_by_name(names, axis):
    boxed = {
        "rows": nn.LogicallyPartitioned(jnp.zeros((2, 2)), names),
        "norm": nn.LogicallyPartitioned(jnp.zeros(2), ("width",)),
        "plain": jnp.zeros(2),
    }
    assert vocab_rows.find_vocab_axes(boxed) == {"rows": axis, "norm": -1, "plain": -1}
