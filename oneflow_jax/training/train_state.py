"""All that changes from step to step of a training run, laid out over the mesh from the start."""

from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax

from oneflow_jax.runtime import sharding
from oneflow_jax.shapes import Array, Int, Key, PyTree


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step; `key` is the run's root key, and never advances."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    params: PyTree
    opt_state: PyTree
    ema: PyTree


class Initializable(Protocol):
    """What has a state: `config.seed` is its seed, `mesh` where it lives."""

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh

    def first_state(self, key: Key[Array, ""]) -> TrainState:
        """The state before the first step, perhaps boxed in linen's partitioning metadata."""


def create(
    key: Key[Array, ""], params: PyTree, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step of these parameters."""
    return TrainState(
        step=jnp.int32(0),
        key=key,
        params=params,
        opt_state=optimizer.init(params),
        # A copy, because a donated state must not hold one buffer twice.
        ema=jax.tree.map(jnp.copy, params),
    )


def init_key(key: Key[Array, ""]) -> Key[Array, ""]:
    """The key of first parameters, apart from every step's key."""
    return jax.random.fold_in(key, jnp.iinfo(jnp.int32).max)


def abstract_state(system: Initializable) -> TrainState:
    """Shapes, types and shardings of the training state, without its values."""
    with sharding.mesh_context(system.mesh):
        # The key too is made in the abstract: the mesh may be of devices that are not here.
        boxed = jax.eval_shape(lambda: system.first_state(jax.random.key(system.config.seed)))
    shardings = sharding.state_sharding(system.mesh, boxed)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        sharding.unbox(boxed),
        shardings,
    )


def init_sharded(system: Initializable) -> TrainState:
    """The state before the first step, each device holding its share from the start."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(system))
    with sharding.mesh_context(system.mesh):
        init = jax.jit(lambda key: sharding.unbox(system.first_state(key)), out_shardings=shardings)
        return init(jax.random.key(system.config.seed))
