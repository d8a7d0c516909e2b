"""The optimizer: AdamW with warm-up, cosine decay and clipping; and the average of parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from oneflow_jax.shapes import Array, Float, Int, PyTree


@dataclasses.dataclass(frozen=True)
class Settings:
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


def schedule(settings: Settings) -> optax.Schedule:
    """The learning rate by step."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=settings.learning_rate,
        warmup_steps=settings.warmup,
        decay_steps=max(settings.steps, settings.warmup + 1),
        end_value=settings.learning_rate * settings.final,
    )


def optimizer(settings: Settings) -> optax.GradientTransformation:
    """Clipping, then AdamW; norms, biases and token vectors are not decayed."""
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(
            schedule(settings),
            b1=settings.b1,
            b2=settings.b2,
            weight_decay=settings.weight_decay,
            mask=_matrices,
        ),
    )


def averaged(ema: PyTree, params: PyTree, step: Int[Array, ""], decay: float) -> PyTree:
    """The running average of parameters after an update.

    Early on the window grows with the step, min(decay, (1 + step) / (10 + step)), so that the
    initial parameters are soon forgotten.
    """
    step = step.astype(jnp.float32)
    weight: Float[Array, ""] = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, ema, 1 - weight)


def _matrices(params: PyTree) -> PyTree:
    # Boxed parameters bear one key more than plain ones, so "kernel" may not be the last.
    return jax.tree.map_with_path(lambda path, _: jax.tree_util.DictKey("kernel") in path, params)
