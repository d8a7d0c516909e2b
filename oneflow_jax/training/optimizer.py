"""The optimizer (AdamW or Muon, with warm-up, cosine decay and gradient clipping), and the EMA.

Parameters can be frozen by name. Frozen parameters get no gradient, no weight decay and no update,
and their EMA stays the same to the last bit.
"""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from oneflow_jax.errors import UserError, check_one_of
from oneflow_jax.shapes import Array, Float, Int, PyTree

NEWTON_SCHULZ_STEPS = 5
"""Steps of the Newton-Schulz iteration with which Muon orthogonalizes the momentum of a matrix."""

MUON_RMS = 0.2
"""RMS of Muon's update of a matrix, as a multiple of the learning rate.

An update of AdamW has about this RMS, so both optimizers share one learning rate (Liu et al., Muon
is Scalable for LLM Training, 2025, section 2.2).
"""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimizer.

    Attributes:
        name: "adamw"; or "muon", which updates the matrices of the backbone by Muon and all other
            parameters by AdamW.
        learning_rate: peak learning rate, reached at the end of the warm-up.
        warmup_steps: number of steps of the linear warm-up from 0.
        total_steps: number of steps of the run. The cosine decay ends at the last step.
        end_lr_fraction: final learning rate as a fraction of the peak.
        b1, b2: decay rates of Adam's first and second moments.
        weight_decay: decoupled weight decay of matrices, multiplied by the learning rate.
        max_grad_norm: maximum global norm of the gradient.
        ema_decay: decay of the EMA of the parameters, which evaluation and sampling use.
        freeze: regular expression, for example "backbone/blocks/text/". Parameters whose names
            contain a match are frozen. "" freezes no parameter.
    """

    learning_rate: float
    warmup_steps: int
    total_steps: int
    end_lr_fraction: float
    b1: float
    b2: float
    weight_decay: float
    max_grad_norm: float
    ema_decay: float
    freeze: str = ""
    name: str = "adamw"


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """Return the learning rate schedule: linear warm-up, then cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(config.total_steps, config.warmup_steps + 1),
        end_value=config.learning_rate * config.end_lr_fraction,
    )


def optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return gradient clipping followed by AdamW or Muon.

    Weight decay applies to matrices only, not to norms, biases and token embeddings.

    Raises:
        UserError: `name` is unknown, or `freeze` is not a regular expression. The `init` function
            of the result also raises UserError if `freeze` matches no parameter or all parameters.
    """
    check_one_of("optimizer.name", config.name, BUILDERS)
    update = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), BUILDERS[config.name](config)
    )
    if not config.freeze:
        return update
    pattern = _compile_pattern(config.freeze)
    # In the partition, only trained parameters have optimizer moments.
    return optax.partition(
        {"frozen": optax.set_to_zero(), "trained": update},
        lambda params: _partition_labels(pattern, params),
    )


def _adamw(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.adamw(
        schedule(config),
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        mask=_weight_decay_mask,
    )


def _muon(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return Muon (Jordan, 2024) for the matrices of the backbone, and AdamW for the others.

    Muon replaces the momentum U S V' of a matrix by U V', so an update has the same size in all
    directions.
    """
    return optax.contrib.muon(
        schedule(config),
        ns_steps=NEWTON_SCHULZ_STEPS,
        weight_decay=config.weight_decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        muon_weight_dimension_numbers=_matrix_axes,
        consistent_rms=MUON_RMS,
    )


BUILDERS: dict[str, Callable[[OptimizerConfig], optax.GradientTransformation]] = {
    "adamw": _adamw,
    "muon": _muon,
}
"""Name of an optimizer -> function that builds it; `optimizer` adds clipping and freezing."""


def stop_gradient_where(params: PyTree, freeze: str) -> PyTree:
    """Return the parameters; no gradient flows to those whose names match `freeze`."""
    if not freeze:
        return params
    pattern = _compile_pattern(freeze)

    def hold(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
        return jax.lax.stop_gradient(leaf) if pattern.search(_param_name(path)) else leaf

    return jax.tree.map_with_path(hold, params)


def count_trained(params: PyTree, freeze: str) -> tuple[int, int]:
    """Return the number of trained numbers in the parameters, and of all numbers."""
    pattern = _compile_pattern(freeze)
    sizes = [(_param_name(path), leaf.size) for path, leaf in jax.tree.leaves_with_path(params)]
    trained = sum(size for name, size in sizes if not (freeze and pattern.search(name)))
    return trained, sum(size for _, size in sizes)


def update_ema(ema: PyTree, params: PyTree, step: Int[Array, ""], ema_decay: float) -> PyTree:
    """Return the EMA of the parameters after an update.

    The decay is min(ema_decay, (1 + step) / (10 + step)). Early steps have a small decay, so the
    weight of the initial parameters in the average falls quickly.
    """
    step = step.astype(jnp.float32)
    weight: Float[Array, ""] = jnp.minimum(ema_decay, (1 + step) / (10 + step))

    def average(old: Array, new: Array) -> Array:
        # A parameter that equals its EMA, such as a frozen one, keeps its EMA to the last bit.
        return jnp.where(new == old, new, old + (1 - weight) * (new - old))

    return jax.tree.map(average, ema, params)


def _weight_decay_mask(params: PyTree) -> PyTree:
    # The path of a boxed parameter ends with an additional key. So "kernel" need not be the last
    # key.
    return jax.tree.map_with_path(lambda path, _: jax.tree_util.DictKey("kernel") in path, params)


def _matrix_axes(params: PyTree) -> PyTree:
    """Return the axes of inputs and outputs of each matrix that Muon updates, None elsewhere.

    Kernels of the backbone have a leading axis of layers, which is not part of the matrix.
    Attention has a head axis and a width axis in place of one output axis, or one input axis.
    """

    def axes(
        path: jax.tree_util.KeyPath, kernel: Array
    ) -> optax.contrib.MuonDimensionNumbers | None:
        *parents, name = _param_name(path).split("/")
        if name != "kernel" or parents[0] != "backbone":
            return None
        num_inputs = 2 if kernel.ndim == 4 and parents[-1] == "out" else 1
        return optax.contrib.MuonDimensionNumbers(
            reduction_axis=tuple(range(1, 1 + num_inputs)),
            output_axis=tuple(range(1 + num_inputs, kernel.ndim)),
        )

    tree = jax.tree.map_with_path(axes, params)
    if not jax.tree.leaves(tree):
        raise UserError(
            "optimizer.name='muon': Muon updates the matrices of a backbone, and none of the "
            "trained parameters is such a matrix. Set optimizer.name to 'adamw'."
        )
    return tree


def _compile_pattern(freeze: str) -> re.Pattern[str]:
    try:
        return re.compile(freeze)
    except re.error as error:
        raise UserError(
            f"optimizer.freeze={freeze!r}: it is not a valid regular expression: {error}."
        ) from error


def _partition_labels(pattern: re.Pattern[str], params: PyTree) -> PyTree:
    names = [_param_name(path) for path, _ in jax.tree.leaves_with_path(params)]
    frozen = [name for name in names if pattern.search(name)]
    if len(frozen) in (0, len(names)):
        which = "all" if frozen else "none"
        raise UserError(
            f"optimizer.freeze={pattern.pattern!r}: it matches {which} of the parameters. It must "
            f"match some, but not all, of {', '.join(names)}."
        )
    return jax.tree.map_with_path(
        lambda path, _: "frozen" if pattern.search(_param_name(path)) else "trained", params
    )


def _param_name(path: jax.tree_util.KeyPath) -> str:
    """Return the name of a parameter, such as "backbone/norm/scale"."""
    # The path of a boxed parameter has an additional key, which is an attribute and not a name.
    keys = [key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")
