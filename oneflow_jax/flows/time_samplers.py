"""When: the time that each document and each slot is shown at during training."""

import dataclasses

import jax
import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float, Int, Key

GOLDEN_RATIO_CONJUGATE = 0.6180339887498949
"""Fraction of the golden ratio: multiples of it, modulo 1, spread evenly however many are taken."""


def sample_stratified(key: Key[Array, ""], batch_size: int) -> Float[Array, "B"]:
    """Numbers u in [0, 1), one in each B-th of the interval, in random order over the rows.

    Each is uniform by itself; together they cover the interval, which lowers the variance of the
    loss (low-discrepancy sampling of Kingma et al., Variational Diffusion Models, appendix I.1).
    """
    key_shift, key_order = jax.random.split(key)
    strata = jax.random.permutation(key_order, batch_size)
    return (strata + jax.random.uniform(key_shift, (batch_size,))) / batch_size


def spread_over_documents(
    u: Float[Array, "*b"], segment: Int[Array, "*b L"]
) -> Float[Array, "*b L"]:
    """A number in [0, 1) for each document of a row, spread over its slots; u for the first.

    Documents packed into one row would else share their row's number. Each is uniform by itself.
    """
    return jnp.mod(u[..., None] + GOLDEN_RATIO_CONJUGATE * (segment - 1), 1.0)


@dataclasses.dataclass(frozen=True)
class PowerTimeSampler:
    """Times t = u^exponent: uniform for 1; above it, early and noisy times come more often.

    What a picture is to show is settled early: the fewer the pictures and the more numbers in
    each, the earlier, until words only matter close to t=0.
    """

    exponent: float = 1.0

    def __call__(self, u: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The times of uniform numbers u, in order."""
        return u**self.exponent


@dataclasses.dataclass(frozen=True)
class LogitNormalTimeSampler:
    """Times t = sigmoid(mean + deviation * z), z standard normal: mostly in the middle.

    Esser et al., Scaling Rectified Flow Transformers, eq. 19, drawn by inversion, so that
    stratified u give stratified t.
    """

    mean: float
    deviation: float

    def __call__(self, u: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The times of uniform numbers u, in order."""
        # float32 rounds u close to 1 up to 1, whose normal quantile is infinite.
        quantile = jax.scipy.special.ndtri(jnp.clip(u, 1e-6, 1 - 1e-6))
        return jax.nn.sigmoid(self.mean + self.deviation * quantile)


TimeSampler = PowerTimeSampler | LogitNormalTimeSampler
TIME_SAMPLERS: dict[str, type[TimeSampler]] = {
    "power": PowerTimeSampler,
    "logit_normal": LogitNormalTimeSampler,
}
