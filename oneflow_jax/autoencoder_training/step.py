"""The training step of autoencoders: random flips, loss, update, and restarts of dead codes."""

import jax
import jax.numpy as jnp
import optax

from oneflow_jax.autoencoder_training.objectives import Objective
from oneflow_jax.codecs.autoencoder.pixels import from_uint8
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
    """Initialize the training state, for images of `pixels` x `pixels`."""
    shape = objective.model.architecture
    picture = jnp.zeros((1, pixels, pixels, shape.in_channels))
    params = objective.model.init(train_state.init_key(key), picture)["params"]
    return train_state.create(key, params, optimizer)


def train_step(
    state: TrainState,
    images: UInt8[Array, "B H W 3"],
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    num_microbatches: int,
    total_steps: int,
) -> tuple[TrainState, update.Metrics]:
    """Take a training step on a global batch.

    Args:
        state: state before the step; its buffers may be donated.
        images: global batch.
        objective: network and loss.
        optimizer: optimizer of the parameters.
        ema_decay: decay rate of the parameters' exponential moving average.
        num_microbatches: number of microbatches for gradient accumulation; divides B.
        total_steps: number of steps of the whole run.

    Returns:
        The state after the step, and metrics to log.
    """
    rows = images.shape[0]
    key_rows, key_tended = jax.random.split(jax.random.fold_in(state.key, state.step))

    def loss(params: PyTree, part: PyTree) -> tuple[Float[Array, ""], PyTree]:
        keys, pixels = part
        both = jax.vmap(jax.random.split)(keys)
        flipped = jax.vmap(random_flip)(both[:, 0], from_uint8(pixels))
        sums, seen = objective.loss_sums(params, both[:, 1], flipped)
        return sum(w * sums[k].total / rows for k, w in objective.weights), (sums, seen)

    state, logged, seen = update.accumulate_and_apply(
        state,
        loss,
        (update.per_row_keys(key_rows, rows), images),
        optimizer=optimizer,
        ema_decay=ema_decay,
        num_microbatches=num_microbatches,
    )
    left = 1 - state.step / total_steps
    # With the same key, the same codes restart at the same vectors in the parameters and the EMA.
    again = jax.random.clone(key_tended)
    params = objective.post_update(state.params, key_tended, seen, left)
    ema = objective.post_update(state.ema, again, seen, left)
    state = state.replace(params=params, ema=ema)
    return state, logged | {"images": update.single(jnp.float32(rows))}


def random_flip(key: Key[Array, ""], pixels: Float[Array, "H W 3"]) -> Float[Array, "H W 3"]:
    """Flip an image left to right with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), pixels, pixels[:, ::-1])
