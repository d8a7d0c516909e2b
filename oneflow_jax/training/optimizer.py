"""The optimizer: AdamW with warm-up, cosine decay and clipping; and the average of parameters.

Parameters may be frozen by name: they get no gradient, no decay and no update, and their average
stays what it is to the last bit.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import optax

from oneflow_jax.errors import UserError
from oneflow_jax.shapes import Array, Float, Int, PyTree


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of AdamW.

    Attributes:
        learning_rate: the highest, at the end of the warm-up.
        warmup: steps from 0 up to it.
        steps: steps of the whole run; the rate follows a cosine down to `final` times its peak.
        final: see `steps`.
        b1, b2: decay of the two moments.
        weight_decay: of matrices alone, times the learning rate.
        clip: largest norm of the gradient.
        ema: decay of the average of parameters that evaluation and sampling use.
        frozen: regular expression that is found in the names of parameters that are not to change,
            as in "backbone/blocks/text/"; "" freezes none.
    """

    learning_rate: float
    warmup: int
    steps: int
    final: float
    b1: float
    b2: float
    weight_decay: float
    clip: float
    ema: float
    frozen: str = ""


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """The learning rate by step."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup,
        decay_steps=max(config.steps, config.warmup + 1),
        end_value=config.learning_rate * config.final,
    )


def optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, then AdamW; norms, biases and token vectors are not decayed.

    Raises:
        UserError: `frozen` is no regular expression; in `init`, it names no parameter, or all.
    """
    adamw = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            schedule(config),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=_weight_decay_mask,
        ),
    )
    if not config.frozen:
        return adamw
    pattern = _compile_pattern(config.frozen)
    # Of what is frozen there are no moments to keep either.
    return optax.partition(
        {"frozen": optax.set_to_zero(), "trained": adamw},
        lambda params: _partition_labels(pattern, params),
    )


def stop_gradient_where(params: PyTree, freeze: str) -> PyTree:
    """The parameters, with no gradient into those that `freeze` names."""
    if not freeze:
        return params
    pattern = _compile_pattern(freeze)

    def hold(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
        return jax.lax.stop_gradient(leaf) if pattern.search(_param_name(path)) else leaf

    return jax.tree.map_with_path(hold, params)


def update_ema(ema: PyTree, params: PyTree, step: Int[Array, ""], ema_decay: float) -> PyTree:
    """The running average of parameters after an update.

    Early on the window grows with the step, min(decay, (1 + step) / (10 + step)), so that the
    initial parameters are soon forgotten.
    """
    step = step.astype(jnp.float32)
    weight: Float[Array, ""] = jnp.minimum(ema_decay, (1 + step) / (10 + step))

    def average(old: Array, new: Array) -> Array:
        # What does not change is averaged to itself, to the last bit.
        return jnp.where(new == old, new, old + (1 - weight) * (new - old))

    return jax.tree.map(average, ema, params)


def _weight_decay_mask(params: PyTree) -> PyTree:
    # Boxed parameters bear one key more than plain ones, so "kernel" may not be the last.
    return jax.tree.map_with_path(lambda path, _: jax.tree_util.DictKey("kernel") in path, params)


def _compile_pattern(freeze: str) -> re.Pattern[str]:
    try:
        return re.compile(freeze)
    except re.error as error:
        raise UserError(
            f"optimizer.frozen={freeze!r} is no regular expression: {error}."
        ) from error


def _partition_labels(pattern: re.Pattern[str], params: PyTree) -> PyTree:
    names = [_param_name(path) for path, _ in jax.tree.leaves_with_path(params)]
    found = [name for name in names if pattern.search(name)]
    if len(found) in (0, len(names)):
        which = "all" if found else "none"
        raise UserError(
            f"optimizer.frozen={pattern.pattern!r} names {which} of the parameters, which are "
            f"{', '.join(names)}."
        )
    return jax.tree.map_with_path(
        lambda path, _: "frozen" if pattern.search(_param_name(path)) else "trained", params
    )


def _param_name(path: jax.tree_util.KeyPath) -> str:
    """As in "backbone/norm/scale"."""
    # Boxed parameters bear one key more than plain ones, an attribute.
    keys = [key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")
