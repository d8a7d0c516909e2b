"""One update of any model's parameters: gradients over microbatches, optimizer, average.

Losses come as sums over rows, divided by counts of the whole batch, so that gradients do not
depend on how many microbatches or devices the batch is cut into.
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
"""(parameters, a microbatch) -> its share of the loss, and (sums by term, what else was seen)."""


def accumulate_and_apply(
    state: TrainState,
    loss: Loss,
    rows: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    num_microbatches: int,
) -> tuple[TrainState, Metrics, PyTree]:
    """The state after one update, what to log of it, and what the loss has seen besides.

    Args:
        state: may be donated.
        loss: of a microbatch; those of all microbatches add up to that of the batch.
        rows: of the global batch, every leaf `[B ...]`.
        optimizer: how gradients become updates.
        ema_decay: of the average of parameters.
        num_microbatches: microbatches, run one after another; B is a multiple of it.
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
    """A key for each row, whatever the number of rows."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(num_rows))


def split_microbatches(tree: PyTree, num_microbatches: int) -> PyTree:
    """Split the tree's rows into `num_microbatches`, `[parts B/parts ...]`, dealt out like cards.

    Consecutive rows lie on one device; dealt out, each microbatch has rows on every device and
    none need move. Cutting the batch into consecutive runs would gather it on all devices.
    """
    return jax.tree.map(lambda x: rearrange(x, "(m g) ... -> g m ...", g=num_microbatches), tree)


def _scan_or_once(
    body: Callable, carry: PyTree, rows: PyTree, num_microbatches: int
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan`, but that one round is no loop.

    Inside loops, also in those that it finds to have one round, XLA's CPU backend convolves 20
    times slower.
    """
    if num_microbatches > 1:
        return jax.lax.scan(body, carry, rows)
    carry, out = body(carry, jax.tree.map(lambda x: x[0], rows))
    return carry, jax.tree.map(lambda x: x[None], out)


def sum_leading(stacked: PyTree) -> PyTree:
    """Sums over the first axis."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), stacked)


def single(value: Float[Array, ""]) -> metrics.Average:
    """A value that came once."""
    return metrics.Average(total=value, count=jnp.float32(1.0))
