"""Text made continuous: tokens as points, noise around a mask, points read back as tokens.

x_1 = E[id]          rows of E of norm sqrt(width), so that each number has about unit variance
x_0 = m + eps        a learned mask vector, and noise: an ODE that started from one fixed point
                     would have one trajectory, hence one text
"""

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import EmbeddingTable
from oneflow_jax.shapes import Array, Float, Int, Key


def normalize(table: EmbeddingTable) -> EmbeddingTable:
    """The table with rows of norm sqrt(E): free rows would grow, or shrink into one another."""
    mean_square = jnp.mean(jnp.square(table.rows), axis=-1, keepdims=True)
    return table.replace(rows=table.rows * jax.lax.rsqrt(mean_square + 1e-12))


def masked_noise(key: Key[Array, ""], table: EmbeddingTable, num_slots: int) -> Float[Array, "L E"]:
    """x_0 of `num_slots` text slots."""
    return table.mask[None] + jax.random.normal(key, (num_slots, *table.mask.shape))


def expected_embedding(
    logits: Float[Array, "*b L V"], table: EmbeddingTable
) -> Float[Array, "*b L E"]:
    """The clean vector expected under the predicted tokens: softmax(logits) E."""
    return jax.nn.softmax(logits) @ table.rows


def token_log_likelihood(
    vectors: Float[Array, "*b L E"], table: EmbeddingTable
) -> Float[Array, "*b L V"]:
    """Log-likelihood, up to a constant, of each token as the center of unit noise at `vectors`."""
    products = vectors @ table.rows.T
    return products - 0.5 * jnp.broadcast_to(jnp.sum(table.rows**2, axis=-1), products.shape)


def greedy_decode(
    logits: Float[Array, "*b L V"],
) -> tuple[Int[Array, "*b L"], Float[Array, "*b L"]]:
    """The likeliest token of each slot, and its probability."""
    return jnp.argmax(logits, axis=-1), jnp.max(jax.nn.softmax(logits), axis=-1)
