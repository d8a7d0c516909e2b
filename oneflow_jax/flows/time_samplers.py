"""Time samplers: the distribution of t in training."""

import dataclasses

import jax
import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float, Int, Key

GOLDEN_RATIO_CONJUGATE = 0.6180339887498949
"""Golden ratio minus 1: the first n multiples of it, modulo 1, are well spread for every n."""


def sample_stratified(key: Key[Array, ""], batch_size: int) -> Float[Array, "B"]:
    """Sample one u in [0, 1) per row, stratified: one in each of B equal intervals, shuffled.

    Each u alone is uniform. Together they cover the interval, which reduces the variance of the
    loss (low-discrepancy sampling of Kingma et al., Variational Diffusion Models, appendix I.1).
    """
    key_shift, key_order = jax.random.split(key)
    strata = jax.random.permutation(key_order, batch_size)
    return (strata + jax.random.uniform(key_shift, (batch_size,))) / batch_size


def spread_over_documents(
    u: Float[Array, "*b"], segment: Int[Array, "*b L"]
) -> Float[Array, "*b L"]:
    """Return a different number in [0, 1) for each document packed into a row.

    The first document gets the row's u; every following one adds the golden ratio, modulo 1. Each
    number alone is uniform. All slots of a document get its number.
    """
    return jnp.mod(u[..., None] + GOLDEN_RATIO_CONJUGATE * (segment - 1), 1.0)


@dataclasses.dataclass(frozen=True)
class PowerTimeSampler:
    """Times t = u^exponent: uniform for exponent 1, more early (noisy) times above 1.

    The content of an image is determined early in the flow. The fewer images a data set has and
    the more dimensions an image has, the earlier; in the extreme, text influences the image only
    close to t = 0.
    """

    exponent: float = 1.0

    def __call__(self, u: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Map uniform numbers u to times; the map is increasing."""
        return u**self.exponent


@dataclasses.dataclass(frozen=True)
class LogitNormalTimeSampler:
    """Times t = sigmoid(mean + std * z), z standard normal: concentrated at intermediate times.

    Esser et al., Scaling Rectified Flow Transformers, eq. 19. Sampled by inverting the cumulative
    distribution function, so stratified u give stratified t.
    """

    mean: float
    std: float

    def __call__(self, u: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Map uniform numbers u to times; the map is increasing."""
        # float32 rounds u close to 1 up to 1, where the normal quantile is infinite.
        quantile = jax.scipy.special.ndtri(jnp.clip(u, 1e-6, 1 - 1e-6))
        return jax.nn.sigmoid(self.mean + self.std * quantile)


TimeSampler = PowerTimeSampler | LogitNormalTimeSampler
TIME_SAMPLERS: dict[str, type[TimeSampler]] = {
    "power": PowerTimeSampler,
    "logit_normal": LogitNormalTimeSampler,
}
