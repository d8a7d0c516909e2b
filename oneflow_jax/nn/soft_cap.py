"""Soft caps of attention scores and of logits (Gemma Team, Gemma 2, 2024, section 2).

A soft cap maps x to limit * tanh(x / limit), so results are between -limit and limit. The limit 0
stands for no cap.
"""

import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float


def apply(x: Float[Array, "..."], limit: float) -> Float[Array, "..."]:
    """Return the capped values."""
    return limit * jnp.tanh(x / limit) if limit else x


def backward(
    grad: Float[Array, "..."], capped: Float[Array, "..."], limit: float
) -> Float[Array, "..."]:
    """Return the gradient with respect to x, from that of `capped`, the result of `apply`."""
    return grad * (1 - jnp.square(capped / limit)) if limit else grad
