"""One update of the parameters, the same for every paradigm.

The step knows its paradigm by `counts`, `corrupt` and `loss` alone. Losses come as sums over
rows and are divided by counts of the whole clean batch, so that gradients do not depend on how
many microbatches or devices the batch is cut into; every row has its own key, a function of
(seed, step, row), for the same reason.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from einops import rearrange

from oneflow_jax import optim
from oneflow_jax.canvas import Canvas, View
from oneflow_jax.flows import clocks
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.base import Paradigm
from oneflow_jax.shapes import Array, Float, Int, Key, PyTree, Sums

Metrics = dict[str, metrics.Average]


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step; `key` is the run's root key, and never advances."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    params: PyTree
    opt_state: PyTree
    ema: PyTree


def init_state(
    key: Key[Array, ""], *, model: Model, optimizer: optax.GradientTransformation, view: View
) -> TrainState:
    """The state before the first step, with parameters boxed in linen's partitioning metadata.

    Args:
        key: the run's root key.
        model: to be initialized.
        optimizer: to be initialized.
        view: any view of the right shapes.
    """
    key_init = jax.random.fold_in(key, jnp.iinfo(jnp.int32).max)  # Apart from every step's key.
    params = model.init(key_init, view)["params"]
    return TrainState(
        step=jnp.int32(0),
        key=key,
        params=params,
        opt_state=optimizer.init(params),
        # A copy, because a donated state must not hold one buffer twice.
        ema=jax.tree.map(jnp.copy, params),
    )


def row_keys(key: Key[Array, ""], rows: int) -> Key[Array, "B"]:
    """A key for each row, whatever the number of rows."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(rows))


def row_sums(
    params: PyTree,
    keys: Key[Array, "B"],
    u: Float[Array, "B L"],
    canvas: Canvas,
    *,
    model: Model,
    paradigm: Paradigm,
) -> Metrics:
    """Loss totals and numbers of scored slots by term, over the given rows."""
    table = model.apply({"params": params}, method="table")
    corrupt = jax.vmap(functools.partial(paradigm.corrupt, table=table))
    view, targets = corrupt(keys, u, canvas)
    outputs = model.apply({"params": params}, view)
    return _total(jax.vmap(paradigm.loss)(outputs, targets))


def train_step(
    state: TrainState,
    canvas: Canvas,
    *,
    model: Model,
    paradigm: Paradigm,
    optimizer: optax.GradientTransformation,
    decay: float,
    parts: int,
) -> tuple[TrainState, Metrics]:
    """The state after one update, and what to log of it.

    Args:
        state: may be donated.
        canvas: the clean global batch, `[B L ...]`.
        model: what is trained.
        paradigm: how.
        optimizer: how its gradients become updates.
        decay: of the average of parameters.
        parts: microbatches, run one after another; B is a multiple of it.
    """
    rows = canvas.ids.shape[0]
    key_clock, key_rows = jax.random.split(jax.random.fold_in(state.key, state.step))
    keys = row_keys(key_rows, rows)
    u = clocks.per_document(clocks.stratified(key_clock, rows), canvas.segment)
    counts = _at_least_one(_total(jax.vmap(paradigm.counts)(canvas)))

    def loss(params: PyTree, part: PyTree) -> tuple[Float[Array, ""], Metrics]:
        sums = row_sums(params, *part, model=model, paradigm=paradigm)
        return sum(w * sums[k].total / counts[k] for k, w in paradigm.weights), sums

    def accumulate(grads: PyTree, part: PyTree) -> tuple[PyTree, Metrics]:
        more, sums = jax.grad(loss, has_aux=True)(state.params, part)
        return jax.tree.map(jnp.add, grads, more), sums

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    grads, sums = jax.lax.scan(accumulate, zeros, split_rows((keys, u, canvas), parts))
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    sums = _total(sums)
    logged = sums | {
        "loss": _once(sum(w * sums[k].total / counts[k] for k, w in paradigm.weights)),
        "grad_norm": _once(optax.global_norm(grads)),
        "param_norm": _once(optax.global_norm(params)),
        "update_norm": _once(optax.global_norm(updates)),
        "documents": _once(jnp.sum(jnp.max(canvas.segment, axis=1)).astype(jnp.float32)),
    }
    state = TrainState(
        step=state.step + 1,
        key=state.key,
        params=params,
        opt_state=opt_state,
        ema=optim.averaged(state.ema, params, state.step, decay),
    )
    return state, logged


def eval_step(
    params: PyTree,
    key: Key[Array, ""],
    u: Float[Array, ""],
    canvas: Canvas,
    *,
    model: Model,
    paradigm: Paradigm,
) -> Metrics:
    """Losses of a batch with all documents at the same u: one bucket of the clock."""
    keys = row_keys(key, canvas.ids.shape[0])
    u = jnp.broadcast_to(u, canvas.ids.shape)
    return row_sums(params, keys, u, canvas, model=model, paradigm=paradigm)


def split_rows(tree: PyTree, parts: int) -> PyTree:
    """The tree's rows in `parts` microbatches, `[parts B/parts ...]`, dealt out like cards.

    Consecutive rows lie on one device; dealt out, each microbatch has rows on every device and
    none need move. Cutting the batch into consecutive runs would gather it on all devices.
    """
    return jax.tree.map(lambda x: rearrange(x, "(m g) ... -> g m ...", g=parts), tree)


def _total(stacked: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), stacked)


def _at_least_one(counts: Sums) -> Sums:
    # A batch without any picture has nothing to divide by.
    return {name: jnp.maximum(count, 1.0) for name, count in counts.items()}


def _once(value: Float[Array, ""]) -> metrics.Average:
    return metrics.Average(total=value, count=jnp.float32(1.0))
