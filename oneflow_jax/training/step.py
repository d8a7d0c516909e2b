"""The training step of the mixed-modal transformer, for every paradigm.

The step calls only the methods `counts`, `corrupt` and `loss` of its paradigm. The PRNG key of each
row is a function of (seed, step, row). So random numbers depend neither on the number of
microbatches nor on the number of devices.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from oneflow_jax.canvas import Canvas, NoisyCanvas
from oneflow_jax.flows import time_samplers
from oneflow_jax.flows.training_objective import TrainingObjective
from oneflow_jax.nn import lora
from oneflow_jax.nn.model import Model
from oneflow_jax.shapes import Array, Float, Key, PyTree, Sums
from oneflow_jax.training import optimizer as optimizer_lib
from oneflow_jax.training import train_state, update
from oneflow_jax.training.train_state import TrainState
from oneflow_jax.training.update import Metrics

RowLosses = Callable[..., Metrics]
"""Function from (parameters, EMA of the parameters, keys, u, canvas), with the keywords `model` and
`paradigm`, to the losses of each row by term."""


FULL = lora.LoRA(rank=0)
"""The adapter of usual runs: all parameters of the model are trained."""


def init_state(
    key: Key[Array, ""],
    *,
    model: Model,
    optimizer: optax.GradientTransformation,
    view: NoisyCanvas,
    adapter: lora.LoRA = FULL,
) -> TrainState:
    """Return the initial state, with parameters boxed in linen's partitioning metadata.

    Args:
        key: the run's root key.
        model: the model to initialize.
        optimizer: the optimizer to initialize.
        view: any network input with the shapes of training.
        adapter: the parameters to train in place of those of the model.
    """
    params = model.init(train_state.init_key(key), view)["params"]
    params = adapter.add(train_state.adapter_key(key), params)
    return train_state.create(key, params, optimizer)


def per_row_losses(
    params: PyTree,
    keys: Key[Array, "B"],
    u: Float[Array, "B L"],
    canvas: Canvas,
    *,
    model: Model,
    paradigm: TrainingObjective,
) -> Metrics:
    """Return the loss total and the number of scored slots of each row, `[B]`, by term."""
    table = model.apply({"params": params}, method="embedding_table")
    corrupt = jax.vmap(functools.partial(paradigm.corrupt, table=table))
    view, targets = corrupt(keys, u, canvas)
    outputs = model.apply({"params": params}, view)
    return jax.vmap(paradigm.loss)(outputs, targets)


def denoising_losses(
    params: PyTree,
    ema: PyTree,
    keys: Key[Array, "B"],
    u: Float[Array, "B L"],
    canvas: Canvas,
    *,
    model: Model,
    paradigm: TrainingObjective,
) -> Metrics:
    """Return `per_row_losses`, which do not depend on the EMA: the losses of every usual run."""
    del ema
    return per_row_losses(params, keys, u, canvas, model=model, paradigm=paradigm)


def train_step(
    state: TrainState,
    canvas: Canvas,
    *,
    model: Model,
    paradigm: TrainingObjective,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    num_microbatches: int,
    freeze: str = "",
    row_losses: RowLosses = denoising_losses,
    adapter: lora.LoRA = FULL,
) -> tuple[TrainState, Metrics]:
    """Return the state after one update, and the metrics to log.

    Args:
        state: the training state. Callers may donate it.
        canvas: the clean global batch, `[B L ...]`.
        model: the model to train.
        paradigm: the paradigm that corrupts the batch and defines the loss.
        optimizer: the optimizer.
        ema_decay: decay of the EMA of the parameters.
        num_microbatches: number of gradient accumulation steps; B is a multiple of it.
        freeze: regular expression of the names of frozen parameters (`optimizer.OptimizerConfig`).
        row_losses: the losses of each row.
        adapter: the parameters to train in place of those of the model.
    """
    rows = canvas.ids.shape[0]
    key_clock, key_rows = jax.random.split(jax.random.fold_in(state.key, state.step))
    keys = update.per_row_keys(key_rows, rows)
    u = time_samplers.spread_over_documents(
        time_samplers.sample_stratified(key_clock, rows), canvas.segment
    )
    counts = _clamp_counts(update.sum_leading(jax.vmap(paradigm.counts)(canvas)))

    def loss(params: PyTree, part: PyTree) -> tuple[Float[Array, ""], tuple[Metrics, tuple[()]]]:
        params = optimizer_lib.stop_gradient_where(params, freeze)
        merged = adapter.merge(params), adapter.merge(state.ema)
        by_row = row_losses(*merged, *part, model=model, paradigm=paradigm)
        sums = update.sum_leading(by_row)
        return sum(w * sums[k].total / counts[k] for k, w in paradigm.weights), (sums, ())

    state, logged, _ = update.accumulate_and_apply(
        state,
        loss,
        (keys, u, canvas),
        optimizer=optimizer,
        ema_decay=ema_decay,
        num_microbatches=num_microbatches,
    )
    documents = jnp.sum(jnp.max(canvas.segment, axis=1)).astype(jnp.float32)
    slots = jnp.float32(canvas.ids.size)
    return state, logged | {"documents": update.single(documents), "slots": update.single(slots)}


def eval_step(
    params: PyTree,
    key: Key[Array, ""],
    u: Float[Array, ""],
    canvas: Canvas,
    *,
    model: Model,
    paradigm: TrainingObjective,
) -> Metrics:
    """Return the losses of each row, with all documents at the same time u."""
    keys = update.per_row_keys(key, canvas.ids.shape[0])
    u = jnp.broadcast_to(u, canvas.ids.shape)
    return per_row_losses(params, keys, u, canvas, model=model, paradigm=paradigm)


def _clamp_counts(counts: Sums) -> Sums:
    # Without this, a batch without images would cause a division by 0 image slots.
    return {name: jnp.maximum(count, 1.0) for name, count in counts.items()}
