"""Time samplers: the distribution of t in training."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.shapes import Array, Float, Int, Key

GOLDEN_RATIO_CONJUGATE = 0.6180339887498949
"""Golden ratio minus 1. Its first n multiples, modulo 1, spread evenly over [0, 1) for any n."""


def sample_stratified(key: Key[Array, ""], batch_size: int) -> Float[Array, "B"]:
    """Sample one u per row, stratified: one u in each of B equal parts of [0, 1), in random order.

    Each u alone is uniform. The B numbers together cover the interval evenly, which reduces the
    variance of the loss (low-discrepancy sampling of Kingma et al., Variational Diffusion Models,
    appendix I.1).
    """
    key_shift, key_order = jax.random.split(key)
    strata = jax.random.permutation(key_order, batch_size)
    return (strata + jax.random.uniform(key_shift, (batch_size,))) / batch_size


def spread_over_documents(
    u: Float[Array, "*b"], segment: Int[Array, "*b L"]
) -> Float[Array, "*b L"]:
    """Return a different number in [0, 1) for each document packed into a row.

    The first document gets the row's u. Each following document gets the number of the document
    before it plus the golden ratio, modulo 1. Each number alone is uniform. All slots of a document
    get the document's number.
    """
    return jnp.mod(u[..., None] + GOLDEN_RATIO_CONJUGATE * (segment - 1), 1.0)


@dataclasses.dataclass(frozen=True)
class PowerTimeSampler:
    """Times t = u^exponent: uniform for exponent 1, more early (noisy) times for larger exponents.

    The content of an image is determined early in the flow, and still earlier if the data set has
    few images or if images have many dimensions. In the extreme case, text influences the image
    only close to t = 0.
    """

    exponent: float = 1.0

    def __call__(self, u: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Map uniform numbers u to times; the map is increasing."""
        return u**self.exponent


@dataclasses.dataclass(frozen=True)
class LogitNormalTimeSampler:
    """Times t = sigmoid(mean + std * z), z standard normal: concentrated at intermediate times.

    Esser et al., Scaling Rectified Flow Transformers, eq. 19. The sampler inverts the cumulative
    distribution function, so stratified u give stratified t.
    """

    mean: float
    std: float

    def __call__(self, u: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Map uniform numbers u to times; the map is increasing."""
        # float32 rounds u close to 1 up to 1, where the normal quantile is infinite.
        quantile = jax.scipy.special.ndtri(jnp.clip(u, 1e-6, 1 - 1e-6))
        return jax.nn.sigmoid(self.mean + self.std * quantile)


@dataclasses.dataclass(frozen=True)
class InformationTimeSampler:
    """Times at which the text loss falls quickly with t, mixed with the times t = u^exponent.

    The text loss H(t) of `oneflow` follows a Gumbel curve in the log noise-to-signal ratio:

        H(t) / H(0) = exp(-exp(-(γ - location) / scale)),     γ = 2 ln((1 - t) / t)

    The distribution with density -H'(t) / H(0) draws times in proportion to the information that
    text gains at these times (LangFlow, 2026). Images need other times too, so times u^exponent are
    mixed in.

    Attributes:
        location: location of the Gumbel curve in γ. Wider embeddings have a higher location.
        scale: scale of the Gumbel curve in γ, above 0.
        fraction: fraction of the times that follow the information, 0 to 1.
        exponent: exponent of the other times, as in `PowerTimeSampler`.
    """

    location: float
    scale: float
    fraction: float
    exponent: float = 1.0

    def __call__(self, u: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Map uniform numbers u to times; the map is increasing."""
        times, cumulative = self._table
        return jnp.interp(u, jnp.asarray(cumulative), jnp.asarray(times))

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Times, and the cumulative distribution at these times, in float32."""
        t = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 1025)])
        with np.errstate(divide="ignore", over="ignore"):
            gamma = 2 * (np.log1p(-t) - np.log(t))
            information = np.exp(-np.exp(-(gamma - self.location) / self.scale))
        other = t ** (1 / self.exponent)
        # The division makes the result end at exactly 1: `information` is 0 at t = 1 only up to
        # rounding.
        gained = (1 - information) / (1 - information[-1])
        cumulative = self.fraction * gained + (1 - self.fraction) * other
        return t.astype(np.float32), cumulative.astype(np.float32)


TimeSampler = PowerTimeSampler | LogitNormalTimeSampler | InformationTimeSampler
TIME_SAMPLERS: dict[str, type[TimeSampler]] = {
    "power": PowerTimeSampler,
    "logit_normal": LogitNormalTimeSampler,
    "information": InformationTimeSampler,
}
