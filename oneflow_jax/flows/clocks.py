"""When: the time that each document and each slot is shown at during training."""

import jax
import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float, Int, Key

GOLDEN = 0.6180339887498949
"""Fraction of the golden ratio: multiples of it, modulo 1, spread evenly however many are taken."""


def stratified(key: Key[Array, ""], rows: int) -> Float[Array, "B"]:
    """Numbers u in [0, 1), one in each B-th of the interval, in random order over the rows.

    Each is uniform by itself; together they cover the interval, which lowers the variance of the
    loss (low-discrepancy sampling of Kingma et al., Variational Diffusion Models, appendix I.1).
    """
    key_shift, key_order = jax.random.split(key)
    strata = jax.random.permutation(key_order, rows)
    return (strata + jax.random.uniform(key_shift, (rows,))) / rows


def per_document(u: Float[Array, "*b"], segment: Int[Array, "*b L"]) -> Float[Array, "*b L"]:
    """A number in [0, 1) for each document of a row, spread over its slots; u for the first.

    Documents packed into one row would else share their row's number. Each is uniform by itself.
    """
    return jnp.mod(u[..., None] + GOLDEN * (segment - 1), 1.0)


def logit_normal(u: Float[Array, "*b L"], mean: float, deviation: float) -> Float[Array, "*b L"]:
    """Times t = sigmoid(mean + deviation * z), z standard normal with P(z' < z) = u.

    The density of Esser et al. (Scaling Rectified Flow Transformers, eq. 19), drawn by inversion
    so that stratified u give stratified t. Negative means favor early, noisy times.
    """
    # float32 rounds u close to 1 up to 1, whose normal quantile is infinite.
    u = jnp.clip(u, 1e-6, 1 - 1e-6)
    return jax.nn.sigmoid(mean + deviation * jax.scipy.special.ndtri(u))
