"""Tokens drawn from logits, and which hidden slots are read first."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from oneflow_jax.errors import UserError
from oneflow_jax.shapes import Array, Bool, Float, Int, Key

UNMASK_ORDERS = ("random", "confidence")
"""Each hidden slot by its own luck; or as many as would come on average, the surest first."""


@dataclasses.dataclass(frozen=True)
class TokenSampling:
    """How tokens are drawn; hashable, so static under jit.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: of the probability, from which is drawn: the likeliest tokens that add up to it.
        top_k: as many of the likeliest tokens, from which is drawn; 0 for all.
        order: one of `UNMASK_ORDERS`.
        remask: probability that a token that was read is hidden again in a step.

    Raises:
        UserError: a value outside its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    order: str = "random"
    remask: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"sampling.temperature={self.temperature} must not be below 0.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"sampling.top_p={self.top_p} must be above 0 and at most 1.")
        if self.top_k < 0:
            raise UserError(f"sampling.top_k={self.top_k} must be 1 or more, or 0 for all tokens.")
        if self.order not in UNMASK_ORDERS:
            raise UserError(f"sampling.order={self.order!r} is none of {', '.join(UNMASK_ORDERS)}.")
        if not 0 <= self.remask < 1:
            raise UserError(f"sampling.remask={self.remask} must be at least 0 and below 1.")


def allowed_ids(ranges: Sequence[tuple[int, int]], vocab_size: int) -> Bool[Array, "V"]:
    """True for the ids in the ranges, each from its first up to but without its last."""
    ids = jnp.arange(vocab_size)
    inside = [(first <= ids) & (ids < stop) for first, stop in ranges]
    return jnp.any(jnp.stack(inside), axis=0)


def sampling_log_probs(
    logits: Float[Array, "*b L V"], allowed: Bool[Array, "V"], token_sampling: TokenSampling
) -> Float[Array, "*b L V"]:
    """What tokens are drawn from: the legal ones, sharpened and cut as `token_sampling` says."""
    shape = (1,) * (logits.ndim - 1) + allowed.shape
    logits = jnp.where(allowed.reshape(shape), logits, -jnp.inf)
    if token_sampling.temperature == 0:
        best = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
        return jnp.where(best, 0.0, -jnp.inf)
    logits = jax.nn.log_softmax(logits / token_sampling.temperature)
    if token_sampling.top_k > 0:
        logits = jax.nn.log_softmax(
            jnp.where(_rank(logits) < token_sampling.top_k, logits, -jnp.inf)
        )
    if token_sampling.top_p < 1:
        logits = jax.nn.log_softmax(
            jnp.where(_top_p_mask(logits, token_sampling.top_p), logits, -jnp.inf)
        )
    return logits


def token_probability(
    logits: Float[Array, "*b L V"], ids: Int[Array, "*b L"]
) -> Float[Array, "*b L"]:
    """What the network, as it is, gives to each slot's token."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1)
    return jnp.exp(chosen[..., 0])


def select_to_unmask(
    key: Key[Array, ""],
    masked: Bool[Array, "L"],
    unmask_prob: Float[Array, ""],
    confidence: Float[Array, "L"],
    unmask_order: str,
) -> Bool[Array, "L"]:
    """Which of a row's hidden slots are read in this step, each with probability `unmask_prob`.

    By confidence their number is what that makes on average, rounded by chance, so that over many
    steps it is right also where it is less than one.
    """
    luck = jax.random.uniform(key, masked.shape)
    if unmask_order == "random":
        return masked & (luck < unmask_prob)
    count = jnp.floor(unmask_prob * jnp.sum(masked) + luck[0])
    rank = jnp.argsort(jnp.argsort(jnp.where(masked, -confidence, jnp.inf)))
    return masked & ((rank < count) | (unmask_prob >= 1))


def _rank(log_p: Float[Array, "*b L V"]) -> Int[Array, "*b L V"]:
    """Of each token its place among them, the likeliest 0."""
    return jnp.argsort(jnp.argsort(-log_p, axis=-1), axis=-1)


def _top_p_mask(log_p: Float[Array, "*b L V"], top_p: float) -> Bool[Array, "*b L V"]:
    """The likeliest tokens, down to the one with which they add up to `top_p`."""
    ordered = jnp.exp(-jnp.sort(-log_p, axis=-1))
    before = jnp.cumsum(ordered, axis=-1) - ordered  # So the first is always in.
    return jnp.take_along_axis(before < top_p, _rank(log_p), axis=-1)
