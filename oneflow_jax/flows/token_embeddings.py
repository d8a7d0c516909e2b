"""Continuous text: token embeddings, their noise distribution, and decoding to tokens.

    x_1 = E[id]      rows of E have norm sqrt(width), so each component has about unit variance
    x_0 = m + eps    learned mask embedding m plus Gaussian noise eps

The noise eps is necessary: an ODE that starts from one fixed point has only one trajectory, so it
would generate one and the same text each time.
"""

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import EmbeddingTable
from oneflow_jax.shapes import Array, Float, Int, Key


def masked_noise(key: Key[Array, ""], table: EmbeddingTable, num_slots: int) -> Float[Array, "L E"]:
    """Sample the noise x_0 = m + eps of `num_slots` text slots."""
    return table.mask_embedding[None] + jax.random.normal(
        key, (num_slots, *table.mask_embedding.shape)
    )


def expected_embedding(
    logits: Float[Array, "*b L V"], table: EmbeddingTable
) -> Float[Array, "*b L E"]:
    """Return the expected clean embedding under the predicted tokens: softmax(logits) E."""
    return jax.nn.softmax(logits) @ table.embedding


def token_log_likelihood(
    vectors: Float[Array, "*b L E"], table: EmbeddingTable
) -> Float[Array, "*b L V"]:
    """Return log N(vectors; E[id], I) of each token id, up to a constant."""
    products = vectors @ table.embedding.T
    return products - 0.5 * jnp.broadcast_to(jnp.sum(table.embedding**2, axis=-1), products.shape)


def greedy_decode(
    logits: Float[Array, "*b L V"],
) -> tuple[Int[Array, "*b L"], Float[Array, "*b L"]]:
    """Return the most probable token of each slot and its probability."""
    return jnp.argmax(logits, axis=-1), jnp.max(jax.nn.softmax(logits), axis=-1)
