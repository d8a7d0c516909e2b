"""The training state, and its initialization with every array sharded over the mesh."""

from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from oneflow_jax.runtime import sharding
from oneflow_jax.shapes import Array, Int, Key, PyTree
from oneflow_jax.training.loop_config import LoopConfig


@flax.struct.dataclass
class TrainState:
    """The training state. `key` is the root PRNG key of the run and never changes."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    params: PyTree
    opt_state: PyTree
    ema: PyTree


class Initializable(Protocol):
    """An object that can create a training state on `mesh` from the RNG seed `loop_config.seed`."""

    loop_config: LoopConfig
    mesh: jax.sharding.Mesh

    @property
    def abstract_state(self) -> TrainState:
        """The result of the function `abstract_state`, which traces `init_state`."""

    def init_state(self, key: Key[Array, ""]) -> TrainState:
        """Return the initial state, possibly boxed in linen's partitioning metadata."""


def create(
    key: Key[Array, ""], params: PyTree, optimizer: optax.GradientTransformation
) -> TrainState:
    """Return the initial state for the initial parameters `params`."""
    return TrainState(
        step=jnp.int32(0),
        key=key,
        params=params,
        opt_state=optimizer.init(params),
        # The EMA is a copy because a donated state must not contain the same buffer twice.
        ema=jax.tree.map(jnp.copy, params),
    )


def init_key(key: Key[Array, ""]) -> Key[Array, ""]:
    """Return the key for initializing parameters; it differs from the keys of all steps."""
    return jax.random.fold_in(key, jnp.iinfo(jnp.int32).max)


def adapter_key(key: Key[Array, ""]) -> Key[Array, ""]:
    """Return the key for initializing an adapter; it differs from those of steps and parameters."""
    return jax.random.fold_in(key, jnp.iinfo(jnp.int32).max - 1)


def boxed_shapes(system: Initializable) -> TrainState:
    """Return the shapes of the training state, boxed in linen's partitioning metadata."""
    with sharding.mesh_context(system.mesh):
        # The key is created in `eval_shape`, because the devices of the mesh may not be attached.
        return jax.eval_shape(lambda: system.init_state(jax.random.key(system.loop_config.seed)))


def abstract_state(system: Initializable) -> TrainState:
    """Return shapes, dtypes and shardings of the training state, without its values."""
    boxed = boxed_shapes(system)
    shardings = sharding.state_sharding(system.mesh, boxed)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        sharding.unbox(boxed),
        shardings,
    )


def init_params(system: Initializable) -> PyTree:
    """Return the initial parameters alone, without the other arrays of a training state."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, system.abstract_state.params)
    with sharding.mesh_context(system.mesh):
        init = jax.jit(
            lambda key: sharding.unbox(system.init_state(key)).params, out_shardings=shardings
        )
        return init(jax.random.key(system.loop_config.seed))


def init_sharded(system: Initializable) -> TrainState:
    """Return the initial state; each device creates only its own shards."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, system.abstract_state)
    with sharding.mesh_context(system.mesh):
        init = jax.jit(lambda key: sharding.unbox(system.init_state(key)), out_shardings=shardings)
        return init(jax.random.key(system.loop_config.seed))
