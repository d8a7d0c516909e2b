"""Losses of one row: each is a sum over the scored slots, with the number of scored slots.

The training step divides the sums of the whole batch by slot counts of the clean batch. So
gradients do not depend on how the batch is split into microbatches and shards. Logs divide the sums
by the number of scored slots.
"""

import jax
import jax.numpy as jnp
import optax
from clu import metrics

from oneflow_jax.shapes import Array, Bool, Float, Int


def squared_error(
    prediction: Float[Array, "L n"], target: Float[Array, "L n"], scored: Bool[Array, "L"]
) -> metrics.Average:
    """Return the sum over scored slots of the squared error, averaged over the n components."""
    error = jnp.mean(jnp.square(prediction - target), axis=-1)
    return _masked_sum(scored, error)


def cross_entropy(
    logits: Float[Array, "L V"],
    ids: Int[Array, "L"],
    scored: Bool[Array, "L"],
    weight: Float[Array, "L"] | float = 1.0,
) -> metrics.Average:
    """Return the sum over scored slots of weight * -log softmax(logits)[id], in nats.

    The count is the sum of the weights, so the mean is a weighted mean in nats per slot.
    """
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
    return _masked_sum(scored, nats, weight)


def kl_divergence(
    logits: Float[Array, "L V"], probs: Float[Array, "L V"], scored: Bool[Array, "L"]
) -> metrics.Average:
    """Return the sum over scored slots of KL(probs || softmax(logits)), in nats."""
    return _masked_sum(scored, optax.losses.kl_divergence(jax.nn.log_softmax(logits), probs))


def poisson(
    log_rate: Float[Array, "L"], count: Int[Array, "L"], scored: Bool[Array, "L"]
) -> metrics.Average:
    """Return the sum over scored slots of λ - k log λ, minimal at λ = E[k] (OneFlow, eq. 4)."""
    return _masked_sum(scored, jnp.exp(log_rate) - count * log_rate)


def binary_cross_entropy(
    logits: Float[Array, "L"], labels: Bool[Array, "L"], scored: Bool[Array, "L"]
) -> metrics.Average:
    """Return the sum over scored slots of the binary cross-entropy with `labels`, in nats."""
    return _masked_sum(
        scored, optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))
    )


def z_loss(logits: Float[Array, "L V"], scored: Bool[Array, "L"]) -> metrics.Average:
    """Return the z-loss: the sum over scored slots of (log Z)^2, where Z = sum(exp(logits))."""
    return _masked_sum(scored, jnp.square(jax.nn.logsumexp(logits, axis=-1)))


def _masked_sum(
    scored: Bool[Array, "L"], values: Float[Array, "L"], weight: Float[Array, "L"] | float = 1.0
) -> metrics.Average:
    # Use `where`, not a product: an infinite value in an unscored slot must not become NaN.
    return metrics.Average(
        total=jnp.sum(jnp.where(scored, weight * values, 0.0)),
        count=jnp.sum(jnp.where(scored, weight, 0.0)).astype(jnp.float32),
    )
