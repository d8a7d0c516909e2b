"""Tests of the check of random keys, which is active in all tests."""

import jax
import jax.numpy as jnp
import pytest
from jax.errors import KeyReuseError


def draw_twice(key):
    return jax.random.normal(key) + jax.random.uniform(key)


def make_and_draw_twice(seed):
    return draw_twice(jax.random.key(seed))


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: draw_twice(jax.random.key(0)),
        lambda: jax.jit(draw_twice)(jax.random.key(0)),
        lambda: jax.jit(make_and_draw_twice)(0),
        lambda: jax.vmap(draw_twice)(jax.random.split(jax.random.key(0), 3)),
        lambda: jax.lax.map(make_and_draw_twice, jnp.arange(3)),
        lambda: jax.grad(lambda x: x * make_and_draw_twice(0))(1.0),
    ],
)
def test_key_used_twice_is_an_error(misuse):
    with pytest.raises(KeyReuseError):
        misuse()


@pytest.mark.parametrize(
    "change",
    [
        lambda keys: keys,
        lambda keys: keys[:1],
        lambda keys: jnp.concatenate([keys, keys]),
        lambda keys: jnp.transpose(keys),
        jax.jit(lambda keys: keys[::-1]),
    ],
)
def test_keys_stay_used_after_the_function(change):
    keys = jax.random.split(jax.random.key(1), 2)
    draw = jax.jit(jax.vmap(jax.random.normal))
    draw(keys)
    with pytest.raises(KeyReuseError):
        draw(change(keys))


def test_closed_over_key_counts_as_used_once():
    key = jax.random.key(2)
    draw = jax.jit(lambda x: x + jax.random.normal(key))
    draw(1.0)
    with pytest.raises(KeyReuseError):
        draw(1.0)
    with pytest.raises(KeyReuseError):
        jax.random.normal(key)


def test_calls_without_keys_do_not_reach_the_check(monkeypatch):
    double = jax.jit(lambda x: 2 * x)
    assert double(1.0) == 2
    monkeypatch.setattr("jax._src.pjit._infer_params", None)  # Calls on the slow path now fail.
    assert double(3.0) == 6
