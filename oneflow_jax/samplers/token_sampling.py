"""Sampling of tokens from logits, and the order in which masked slots are unmasked."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from oneflow_jax.errors import check_at_least, check_fraction, check_one_of
from oneflow_jax.samplers import plan_values
from oneflow_jax.shapes import Array, Bool, Float, Int, Key

UNMASK_ORDERS = ("random", "confidence")
"""Unmasking orders.

"random" unmasks each masked slot independently. "confidence" unmasks the same number of slots on
average, the most confident ones first.
"""


@dataclasses.dataclass(frozen=True)
class TokenSpace:
    """Token ids that may be sampled, and the size of images.

    Attributes:
        vocab_size: number of token ids, V.
        text_id_range: range of the ids of text tokens.
        image_token_id: id of `<image>`: the token before an image, or the id that inserts an image.
        end_token_id: id of the token that ends a document; autoregressive paradigms sample it.
        grid: rows and columns of an image, in patches.
    """

    vocab_size: int
    text_id_range: tuple[int, int]
    image_token_id: int
    end_token_id: int
    grid: tuple[int, int]

    @property
    def patches_per_image(self) -> int:
        """Number N of slots of an image."""
        return self.grid[0] * self.grid[1]


@plan_values.register_plan(
    arguments=("remask_prob",), neutral={"temperature": 0.0, "top_p": 1.0, "top_k": 0.0}
)
@dataclasses.dataclass(frozen=True)
class TokenSampling:
    """Parameters of token sampling; see `plan_values` for what a compiled program depends on.

    Attributes:
        temperature: divisor of the logits; 0 selects the most probable token.
        top_p: nucleus sampling: tokens are sampled only from the smallest set of most probable
            tokens whose total probability reaches `top_p`; 1 means all tokens.
        top_k: number of most probable tokens to sample from; 0 means all.
        unmask_order: one of `UNMASK_ORDERS`.
        remask_prob: probability that an unmasked token is masked again in one step.

    Raises:
        UserError: a value is outside its range.
    """

    temperature: plan_values.Number = 1.0
    top_p: plan_values.Number = 1.0
    top_k: plan_values.Number = 0
    unmask_order: str = "random"
    remask_prob: plan_values.Number = 0.0

    def __post_init__(self) -> None:
        check_at_least("sampling.temperature", self.temperature, 0)
        check_fraction("sampling.top_p", self.top_p, allow_zero=False)
        check_at_least("sampling.top_k", self.top_k, 0)
        check_one_of("sampling.unmask_order", self.unmask_order, UNMASK_ORDERS)
        check_fraction("sampling.remask_prob", self.remask_prob, allow_one=False)


def allowed_ids(ranges: Sequence[tuple[int, int]], vocab_size: int) -> Bool[Array, "V"]:
    """Return a mask of the ids in any of the half-open ranges (first, stop)."""
    ids = jnp.arange(vocab_size)
    inside = [(first <= ids) & (ids < stop) for first, stop in ranges]
    return jnp.any(jnp.stack(inside), axis=0)


def sampling_log_probs(
    logits: Float[Array, "*b L V"], allowed: Bool[Array, "V"], token_sampling: TokenSampling
) -> Float[Array, "*b L V"]:
    """Return log probabilities of the allowed tokens after temperature, top-k and top-p."""
    shape = (1,) * (logits.ndim - 1) + allowed.shape
    logits = jnp.where(allowed.reshape(shape), logits, -jnp.inf)
    if plan_values.is_neutral(token_sampling.temperature, 0.0):
        best = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
        return jnp.where(best, 0.0, -jnp.inf)
    logits = jax.nn.log_softmax(logits / token_sampling.temperature)
    if not plan_values.is_neutral(token_sampling.top_k, 0.0):
        logits = jax.nn.log_softmax(
            jnp.where(_rank(logits) < token_sampling.top_k, logits, -jnp.inf)
        )
    if not plan_values.is_neutral(token_sampling.top_p, 1.0):
        logits = jax.nn.log_softmax(
            jnp.where(_top_p_mask(logits, token_sampling.top_p), logits, -jnp.inf)
        )
    return logits


def token_probability(
    logits: Float[Array, "*b L V"], ids: Int[Array, "*b L"]
) -> Float[Array, "*b L"]:
    """Return the probability of each slot's token, without temperature, top-k or top-p."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1)
    return jnp.exp(chosen[..., 0])


def select_to_unmask(
    key: Key[Array, ""],
    masked: Bool[Array, "L"],
    unmask_prob: Float[Array, ""],
    confidence: Float[Array, "L"],
    unmask_order: str,
) -> Bool[Array, "L"]:
    """Select the masked slots of a row that are unmasked in this step.

    In "random" order, each masked slot is selected with probability `unmask_prob`. In "confidence"
    order, the most confident slots are selected. Their number is `unmask_prob` times the number of
    masked slots, rounded up or down at random so that its mean is exact.
    """
    luck = jax.random.uniform(key, masked.shape)
    if unmask_order == "random":
        return masked & (luck < unmask_prob)
    count = jnp.floor(unmask_prob * jnp.sum(masked) + luck[0])
    rank = jnp.argsort(jnp.argsort(jnp.where(masked, -confidence, jnp.inf)))
    return masked & ((rank < count) | (unmask_prob >= 1))


def _rank(log_p: Float[Array, "*b L V"]) -> Int[Array, "*b L V"]:
    """Return the rank of each token by probability; the most probable token has rank 0."""
    return jnp.argsort(jnp.argsort(-log_p, axis=-1), axis=-1)


def _top_p_mask(log_p: Float[Array, "*b L V"], top_p: plan_values.Number) -> Bool[Array, "*b L V"]:
    """Return a mask of the most probable tokens whose total probability reaches `top_p`."""
    ordered = jnp.exp(-jnp.sort(-log_p, axis=-1))
    before = (
        jnp.cumsum(ordered, axis=-1) - ordered
    )  # Exclusive sum: the first token is always included.
    return jnp.take_along_axis(before < top_p, _rank(log_p), axis=-1)
