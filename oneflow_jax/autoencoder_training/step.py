"""One update of an autoencoder, the same for every objective."""

import jax
import jax.numpy as jnp
import optax

from oneflow_jax.autoencoder_training.objectives import Objective
from oneflow_jax.codecs.autoencoder.pixels import centered
from oneflow_jax.shapes import Array, Float, Key, PyTree, UInt8
from oneflow_jax.training import train_state, update
from oneflow_jax.training.train_state import TrainState


def init_state(
    key: Key[Array, ""],
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    pixels: int,
) -> TrainState:
    """The state before the first step, for pictures of `pixels` x `pixels`."""
    shape = objective.model.shape
    picture = jnp.zeros((1, pixels, pixels, shape.in_channels))
    params = objective.model.init(train_state.init_key(key), picture)["params"]
    return train_state.new(key, params, optimizer)


def train_step(
    state: TrainState,
    pictures: UInt8[Array, "B H W 3"],
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    decay: float,
    parts: int,
    steps: int,
) -> tuple[TrainState, update.Metrics]:
    """The state after one update, and what to log of it.

    Args:
        state: may be donated.
        pictures: the global batch.
        objective: what is trained, and how.
        optimizer: how its gradients become updates.
        decay: of the average of parameters.
        parts: microbatches, run one after another; B is a multiple of it.
        steps: of the whole run.
    """
    rows = pictures.shape[0]
    key_rows, key_tended = jax.random.split(jax.random.fold_in(state.key, state.step))

    def loss(params: PyTree, part: PyTree) -> tuple[Float[Array, ""], PyTree]:
        keys, some = part
        both = jax.vmap(jax.random.split)(keys)
        shown = jax.vmap(mirrored)(both[:, 0], centered(some))
        sums, seen = objective.sums(params, both[:, 1], shown)
        return sum(w * sums[k].total / rows for k, w in objective.weights), (sums, seen)

    state, logged, seen = update.updated(
        state,
        loss,
        (update.row_keys(key_rows, rows), pictures),
        optimizer=optimizer,
        decay=decay,
        parts=parts,
    )
    left = 1 - state.step / steps
    # With one key, so that what is placed anew is so in the average too, at the same place.
    again = jax.random.clone(key_tended)
    params = objective.tended(state.params, key_tended, seen, left)
    ema = objective.tended(state.ema, again, seen, left)
    state = state.replace(params=params, ema=ema)
    return state, logged | {"pictures": update.once(jnp.float32(rows))}


def mirrored(key: Key[Array, ""], pixels: Float[Array, "H W 3"]) -> Float[Array, "H W 3"]:
    """The picture, or its mirror image: what is left may as well be right."""
    return jnp.where(jax.random.bernoulli(key), pixels, pixels[:, ::-1])
