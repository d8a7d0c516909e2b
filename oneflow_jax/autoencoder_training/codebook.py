"""What keeps a codebook in use: pure functions of codes and vectors.

A code that no vector chooses gets no gradient, and would stay unchosen.
"""

import jax
import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float, Int, Key


def count_codes(codes: Int[Array, "*b"], num_codes: int) -> Float[Array, "K"]:
    """How often each of `num_codes` codes was chosen."""
    return jnp.zeros(num_codes).at[codes.reshape(-1)].add(1.0)


def codebook_entropy_loss(
    vectors: Float[Array, "n C"], table: Float[Array, "K C"]
) -> Float[Array, ""]:
    """Log K - H(mean probability of each code), in nats: 0 if all are wanted equally often.

    A vector wants code k with probability softmax_k(-|v - e_k|^2 / s), s being the mean squared
    distance of vectors to their nearest codes. Yu et al., Language Model Beats Diffusion, 2023,
    (5), has the like for its codes.
    """
    squares = jnp.sum(vectors**2, axis=-1)[:, None] + jnp.sum(table**2, axis=-1)[None]
    distances = jnp.maximum(squares - 2 * vectors @ table.T, 0.0)
    scale = jax.lax.stop_gradient(jnp.mean(jnp.min(distances, axis=-1))) + 1e-6
    mean = jnp.mean(jax.nn.softmax(-distances / scale), axis=0)
    return jnp.log(table.shape[0]) + jnp.sum(mean * jnp.log(mean + 1e-10))


def sample_high_error_vectors(
    key: Key[Array, ""],
    vectors: Float[Array, "B h w C"],
    quantized: Float[Array, "B h w C"],
    num_vectors: int,
) -> Float[Array, "K C"]:
    """`num_vectors` of the vectors, drawn in proportion to the squared distance from their codes.

    It is how k-means++ places its centers (Arthur and Vassilvitskii, 2007). A vector that lies on
    its code is never drawn, unless all do.
    """
    flat = vectors.reshape(-1, vectors.shape[-1])
    error = jnp.sum((flat - quantized.reshape(flat.shape)) ** 2, axis=-1)
    likely = jnp.where(jnp.any(error > 0), jnp.log(error), 0.0)
    at = jax.random.categorical(key, likely, shape=(num_vectors,))
    return flat[at]


def restart_dead_codes(
    key: Key[Array, ""],
    table: Float[Array, "K C"],
    counts: Float[Array, "K"],
    replacements: Float[Array, "K C"],
    probability: Float[Array, ""] | float,
) -> Float[Array, "K C"]:
    """The table, with unchosen codes replaced by the vectors given, each with that probability."""
    lucky = jax.random.uniform(key, counts.shape) < probability
    return jnp.where(((counts == 0) & lucky)[:, None], replacements, table)
