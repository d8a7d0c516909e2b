"""The update of a model's parameters: gradient accumulation, optimizer step and EMA.

The loss of a microbatch is a sum over its rows, divided by counts of the whole batch. So the
gradient of the batch does not depend on the number of microbatches or devices.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from clu import metrics
from einops import rearrange

from oneflow_jax.shapes import Array, Float, Key, PyTree
from oneflow_jax.training import optimizer as optimizer_lib
from oneflow_jax.training.train_state import TrainState

Metrics = dict[str, metrics.Average]

Loss = Callable[[PyTree, PyTree], tuple[Float[Array, ""], tuple[Metrics, PyTree]]]
"""Function from (parameters, microbatch) to (loss, (sums by term, other outputs)). The loss is the
microbatch's part of the loss of the batch."""


def accumulate_and_apply(
    state: TrainState,
    loss: Loss,
    rows: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    num_microbatches: int,
) -> tuple[TrainState, Metrics, PyTree]:
    """Return the state after one update, the metrics to log, and the other outputs of `loss`.

    Args:
        state: the training state; it may be donated.
        loss: loss of a microbatch; the losses of all microbatches add up to that of the batch.
        rows: the global batch, every leaf `[B ...]`.
        optimizer: the optimizer.
        ema_decay: decay of the EMA of the parameters.
        num_microbatches: number of gradient accumulation steps; B is a multiple of it.
    """

    def accumulate(grads: PyTree, part: PyTree) -> tuple[PyTree, PyTree]:
        (value, (sums, seen)), more = jax.value_and_grad(loss, has_aux=True)(state.params, part)
        return jax.tree.map(jnp.add, grads, more), (value, sums, seen)

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    grads, (values, sums, seen) = _scan_or_once(
        accumulate, zeros, split_microbatches(rows, num_microbatches), num_microbatches
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    logged = sum_leading(sums) | {
        "loss": single(jnp.sum(values)),
        "grad_norm": single(optax.global_norm(grads)),
        "param_norm": single(optax.global_norm(params)),
        "update_norm": single(optax.global_norm(updates)),
    }
    after = TrainState(
        step=state.step + 1,
        key=state.key,
        params=params,
        opt_state=opt_state,
        ema=optimizer_lib.update_ema(state.ema, params, state.step, ema_decay),
    )
    return after, logged, seen


def per_row_keys(key: Key[Array, ""], num_rows: int) -> Key[Array, "B"]:
    """Return a key for each row. The key of a row does not depend on `num_rows`."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(num_rows))


def split_microbatches(tree: PyTree, num_microbatches: int) -> PyTree:
    """Split the rows into strided microbatches, `[num_microbatches B/num_microbatches ...]`.

    Microbatch g has the rows g, g + num_microbatches, g + 2 num_microbatches, ... A device holds
    consecutive rows, so each microbatch has rows on every device, and no row moves to another
    device. If a microbatch had consecutive rows, XLA would gather the batch on all devices.
    """
    return jax.tree.map(lambda x: rearrange(x, "(m g) ... -> g m ...", g=num_microbatches), tree)


def _scan_or_once(
    body: Callable, carry: PyTree, rows: PyTree, num_microbatches: int
) -> tuple[PyTree, PyTree]:
    """Run `jax.lax.scan`, or call `body` directly if there is one microbatch.

    XLA's CPU backend runs convolutions 20 times slower inside a loop, even a loop of one iteration.
    """
    if num_microbatches > 1:
        return jax.lax.scan(body, carry, rows)
    carry, out = body(carry, jax.tree.map(lambda x: x[0], rows))
    return carry, jax.tree.map(lambda x: x[None], out)


def sum_leading(stacked: PyTree) -> PyTree:
    """Sum every leaf over its first axis."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), stacked)


def single(value: Float[Array, ""]) -> metrics.Average:
    """Return a `metrics.Average` of one value, which can be merged with other averages."""
    return metrics.Average(total=value, count=jnp.float32(1.0))
