"""Methods that keep all codes of a codebook in use: an entropy loss, and restarts of dead codes.

These methods are necessary because a code that is nearest to no vector gets no gradient, so the
code would stay unused.
"""

import jax
import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float, Int, Key


def count_codes(codes: Int[Array, "*b"], num_codes: int) -> Float[Array, "K"]:
    """Count how often each of `num_codes` codes occurs."""
    return jnp.zeros(num_codes).at[codes.reshape(-1)].add(1.0)


def codebook_entropy_loss(
    vectors: Float[Array, "n C"], table: Float[Array, "K C"]
) -> Float[Array, ""]:
    """Return log K - H(p), in nats, where p is the mean probability of each code.

    The result is 0 if all codes are equally probable.

    The soft assignment of a vector v to code k has probability softmax_k(-|v - e_k|^2 / s), where s
    is the mean squared distance of the vectors to their nearest codes. A similar loss is eq. 5 of
    Yu et al., Language Model Beats Diffusion, 2023.
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
    """Sample vectors with probability proportional to their squared quantization error.

    k-means++ chooses its centers in this way (Arthur and Vassilvitskii, 2007). A vector whose error
    is 0 is never drawn, unless all errors are 0.
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
    """Replace unused codes (count 0) by their rows of `replacements`, each with `probability`.

    Returns:
        The new table of codes.
    """
    lucky = jax.random.uniform(key, counts.shape) < probability
    return jnp.where(((counts == 0) & lucky)[:, None], replacements, table)
