"""Losses as totals over the scored slots, with how many were scored.

Sums travel, means are for people: the training step divides totals by counts of the clean batch,
so that gradients do not depend on how the batch is cut; logs divide by what was scored.
"""

import jax
import jax.numpy as jnp
import optax
from clu import metrics

from oneflow_jax.shapes import Array, Bool, Float, Int


def squared_error(
    prediction: Float[Array, "L n"], target: Float[Array, "L n"], scored: Bool[Array, "L"]
) -> metrics.Average:
    """Sum over scored slots of the mean squared difference of their n numbers."""
    error = jnp.mean(jnp.square(prediction - target), axis=-1)
    return _masked_sum(scored, error)


def cross_entropy(
    logits: Float[Array, "L V"],
    ids: Int[Array, "L"],
    scored: Bool[Array, "L"],
    weight: Float[Array, "L"] | float = 1.0,
) -> metrics.Average:
    """Sum over scored slots of -log softmax(logits)[id] in nats, times the slot's weight.

    The number of slots is weighted too, so that the mean is one of nats.
    """
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
    return _masked_sum(scored, nats, weight)


def poisson(
    log_rate: Float[Array, "L"], count: Int[Array, "L"], scored: Bool[Array, "L"]
) -> metrics.Average:
    """Sum over scored slots of λ - k log λ, least at λ = E[k] (OneFlow, eq. 4)."""
    return _masked_sum(scored, jnp.exp(log_rate) - count * log_rate)


def binary_cross_entropy(
    logits: Float[Array, "L"], labels: Bool[Array, "L"], scored: Bool[Array, "L"]
) -> metrics.Average:
    """Sum over scored slots of -log of the probability given to what is `labels`, in nats."""
    return _masked_sum(
        scored, optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))
    )


def z_loss(logits: Float[Array, "L V"], scored: Bool[Array, "L"]) -> metrics.Average:
    """Sum over scored slots of (log Z)^2, Z being the sum of exp(logits): z-loss."""
    return _masked_sum(scored, jnp.square(jax.nn.logsumexp(logits, axis=-1)))


def _masked_sum(
    scored: Bool[Array, "L"], values: Float[Array, "L"], weight: Float[Array, "L"] | float = 1.0
) -> metrics.Average:
    # where, not a product: an infinite value in a slot that is not scored must not become NaN.
    return metrics.Average(
        total=jnp.sum(jnp.where(scored, weight * values, 0.0)),
        count=jnp.sum(jnp.where(scored, weight, 0.0)).astype(jnp.float32),
    )
