"""Tests of the initial state and its sharding, with a minimal system."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from oneflow_jax.runtime import sharding
from oneflow_jax.training import train_state
from oneflow_jax.training.loop_config import LoopConfig
from tests import tiny


@dataclasses.dataclass(frozen=True)
class System:
    loop_config: LoopConfig
    mesh: jax.sharding.Mesh

    @property
    def abstract_state(self):
        return train_state.abstract_state(self)

    def init_state(self, key):
        matrix = jax.random.normal(train_state.init_key(key), (16, 4))
        params = {"w": nn.LogicallyPartitioned(matrix, ("width", "embed")), "b": jnp.zeros(3)}
        return train_state.create(key, params, optax.adam(0.1))


def system(seed=0, **sizes):
    mesh = sharding.make_mesh({"data": 1} | sizes)
    return System(LoopConfig(seed, 1, 1, 1, 1, 1), mesh)


def test_initial_state_has_the_planned_shapes_and_shardings():
    sharded_system = system(data=2, fsdp=4)
    abstract, state = (
        train_state.abstract_state(sharded_system),
        train_state.init_sharded(sharded_system),
    )
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for expected, leaf in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (expected.shape, expected.dtype) == (leaf.shape, leaf.dtype)
        assert expected.sharding.is_equivalent_to(leaf.sharding, leaf.ndim)
    for tree in (state.params, state.ema, state.opt_state[0].mu):
        assert tree["w"].addressable_shards[0].data.shape == (4, 4)
        assert tree["b"].addressable_shards[0].data.shape == (3,)


def test_initial_state_does_not_depend_on_the_mesh():
    data_state, fsdp_state = (
        train_state.init_sharded(system(**sizes)) for sizes in ({"data": 8}, {"fsdp": 8})
    )
    tiny.assert_trees_close(data_state.params, fsdp_state.params, atol=0)


def test_initial_ema_is_a_copy_in_separate_buffers():
    params = {"w": jnp.arange(3.0)}
    state = train_state.create(jax.random.key(0), params, optax.sgd(0.1))
    tiny.assert_trees_close(state.params, state.ema, atol=0)
    pointers = {tree["w"].unsafe_buffer_pointer() for tree in (state.params, state.ema)}
    assert len(pointers) == 2
    step = jax.jit(lambda s: s.replace(step=s.step + 1), donate_argnums=0)
    assert step(state).step == 1  # Donating one buffer twice would be an error.


def test_seed_determines_the_state_and_the_root_key():
    first, again, other_seed = (
        train_state.init_sharded(system(seed, data=8)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.params["w"], again.params["w"])
    assert np.any(first.params["w"] != other_seed.params["w"])
    expected = jax.random.key_data(jax.random.key(1))
    np.testing.assert_array_equal(jax.random.key_data(other_seed.key), expected)
    assert first.step == 0


@pytest.mark.parametrize("step", [0, 1, 10_000])
def test_initialization_key_differs_from_step_keys(step):
    keys = train_state.init_key(jax.random.key(0)), jax.random.fold_in(jax.random.key(0), step)
    assert np.any(jax.random.key_data(keys[0]) != jax.random.key_data(keys[1]))
