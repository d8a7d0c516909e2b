"""Attention by blocks of keys, with no more of the L x S scores at a time than one block of them.

The softmax is kept as it stands after some of the keys: sum, greatest score and weighted values
(Milakov & Gimelshein, Online Normalizer Calculation for Softmax, 2018). The backward pass makes
scores anew from the logarithm of the sum (Dao et al., FlashAttention, 2022, algorithm 4), so that
memory is O(L x block) there too. Scores and sums are float32 whatever the network computes in.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.nn.attention_mask import NOBODY, Sight
from oneflow_jax.shapes import Array, Bool, Float, Int, PyTree

BLOCK = 512
"""Keys at a time."""

LOWEST = jnp.finfo(jnp.float32).min
"""The greatest of no scores: finite, so that it can be subtracted from itself."""

Grouped = Float[Array, "B L K G A"]
"""Queries, or what is of their shape, by the key head that they read: H = K G."""


@flax.struct.dataclass
class Held:
    """Keys and values, and who sees them: what goes from device to device in a ring."""

    key: Float[Array, "B S K A"]
    value: Float[Array, "B S K A"]
    segment: Int[Array, "B S"]
    number: Int[Array, "B S"]


@flax.struct.dataclass
class Partial:
    """A softmax after some of the keys.

    Attributes:
        gathered: values, weighted by exp(score - greatest).
        greatest: score so far; that of nothing seen is very low, but finite.
        total: of the weights.
    """

    gathered: Float[Array, "B K G L A"]
    greatest: Float[Array, "B K G L"]
    total: Float[Array, "B K G L"]


@jax.custom_vjp
def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    sight: Sight,
) -> Float[Array, "B L H A"]:
    """softmax(query . key / sqrt(A)) value over the slots in sight; K divides H."""
    return _forward(query, key, value, sight)[0]


def held(key: Float[Array, "B S K A"], value: Float[Array, "B S K A"], sight: Sight) -> Held:
    """Keys and values with who sees them."""
    return Held(key, value, sight.key_segment, sight.number)


def met(sight: Sight, other: Array) -> Sight:
    """The same, but not known before `other` is.

    `nn.scan` takes out of its loop what depends on nothing within: the masks of all blocks at once.
    """
    return jax.lax.optimization_barrier((sight, other))[0]


def nothing(query: Grouped) -> Partial:
    """The softmax before the first key."""
    rows, slots, heads, group, width = query.shape
    over = (rows, heads, group, slots)
    return Partial(jnp.zeros((*over, width)), jnp.full(over, LOWEST), jnp.zeros(over))


def absorbed(partial: Partial, query: Grouped, given: Held, sight: Sight) -> Partial:
    """The softmax after these keys too; of `sight`, only what is of the queries counts."""

    def absorb(so_far: Partial, block: Held) -> tuple[Partial, None]:
        scores, seen = _scores(query, block, sight)
        greatest = jnp.maximum(
            so_far.greatest, jnp.max(scores, axis=-1, where=seen, initial=LOWEST)
        )
        weights = jnp.where(seen, jnp.exp(scores - greatest[..., None]), 0.0)
        shrunk = jnp.exp(so_far.greatest - greatest)
        values = _product("bkgls,bska->bkgla", weights.astype(block.value.dtype), block.value)
        return Partial(
            gathered=so_far.gathered * shrunk[..., None] + values,
            greatest=greatest,
            total=so_far.total * shrunk + jnp.sum(weights, axis=-1),
        ), None

    return jax.lax.scan(absorb, partial, _cut(given))[0]


def finished(
    partial: Partial, query: Float[Array, "B L H A"]
) -> tuple[Float[Array, "B L H A"], Float[Array, "B K G L"]]:
    """What each query has gathered after all keys, and the logarithm of its sum."""
    gathered = jnp.moveaxis(partial.gathered / partial.total[..., None], 3, 1)
    return gathered.reshape(query.shape).astype(query.dtype), partial.greatest + jnp.log(
        partial.total
    )


@flax.struct.dataclass
class Answered:
    """What the backward pass knows of the queries.

    Attributes:
        query: as given.
        slope: the loss's, by what each query gathered.
        log_total: of the softmax.
        mean: of the slope along the values, as the softmax weighs them.
    """

    query: Grouped
    slope: Grouped
    log_total: Float[Array, "B K G L"]
    mean: Float[Array, "B K G L"]


def answered(
    query: Float[Array, "B L H A"],
    found: Float[Array, "B L H A"],
    log_total: Float[Array, "B K G L"],
    slope: Float[Array, "B L H A"],
) -> Answered:
    """The queries with what they found, and the slope of the loss by that."""
    heads = log_total.shape[1]
    mean = jnp.sum(found.astype(jnp.float32) * slope.astype(jnp.float32), axis=-1)
    mean = jnp.moveaxis(grouped(mean[..., None], heads)[..., 0], 1, 3)
    return Answered(grouped(query, heads), grouped(slope, heads), log_total, mean)


def slopes(
    given: Held, sight: Sight, of: Answered
) -> tuple[Grouped, tuple[Float[Array, "B S K A"], Float[Array, "B S K A"]]]:
    """The loss's slopes, as far as it goes by these keys: queries'; and keys', values', float32."""
    scale = 1 / math.sqrt(of.query.shape[-1])
    dtype = of.query.dtype

    def add(by_query: Grouped, block: Held) -> tuple[Grouped, tuple[Array, Array]]:
        scores, seen = _scores(of.query, block, sight)
        weights = jnp.where(seen, jnp.exp(scores - of.log_total[..., None]), 0.0)
        by_weight = _product("blkga,bska->bkgls", of.slope, block.value)
        by_score = (weights * (by_weight - of.mean[..., None]) * scale).astype(dtype)
        by_value = _product("bkgls,blkga->bska", weights.astype(dtype), of.slope)
        by_key = _product("bkgls,blkga->bska", by_score, of.query)
        by_query = by_query + _product("bkgls,bska->blkga", by_score, block.key)
        return by_query, (by_key, by_value)

    start = jnp.zeros(of.query.shape, jnp.float32)
    by_query, by_blocks = jax.lax.scan(add, start, _cut(given))
    slots = given.key.shape[1]
    return by_query, jax.tree.map(lambda x: _joined(x, slots), by_blocks)


def grouped(x: Float[Array, "B L H A"], heads: int) -> Grouped:
    """By key head, of which there are `heads`."""
    return x.reshape(*x.shape[:2], heads, -1, x.shape[-1])


def _forward(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    sight: Sight,
) -> tuple[Float[Array, "B L H A"], PyTree]:
    queries, near = grouped(query, key.shape[2]), met(sight, query)
    whole = absorbed(nothing(queries), queries, held(key, value, near), near)
    found, log_total = finished(whole, query)
    return found, (query, key, value, sight, found, log_total)


def _backward(kept: PyTree, slope: Float[Array, "B L H A"]) -> tuple[Array, Array, Array, None]:
    query, key, value, sight, found, log_total = kept
    of, near = answered(query, found, log_total, slope), met(sight, slope)
    by_query, (by_key, by_value) = slopes(held(key, value, near), near, of)
    by_query = by_query.reshape(query.shape).astype(query.dtype)
    return by_query, by_key.astype(key.dtype), by_value.astype(value.dtype), None


attend.defvjp(_forward, _backward)


def _scores(
    query: Grouped, block: Held, sight: Sight
) -> tuple[Float[Array, "B K G L S"], Bool[Array, "B 1 1 L S"]]:
    """The scores of a block's keys, and which of them count."""
    seen = sight.replace(key_segment=block.segment, number=block.number).visible()
    scores = _product("blkga,bska->bkgls", query, block.key)
    return scores / math.sqrt(query.shape[-1]), seen[:, None, None]


def _product(axes: str, one: Array, other: Array) -> Array:
    return jnp.einsum(axes, one, other, preferred_element_type=jnp.float32)


def _cut(given: Held) -> Held:
    """Blocks of keys, `[n B block ...]`; what fills up the last is seen by nobody."""
    slots = given.number.shape[1]
    size = min(BLOCK, slots)
    more = -slots % size

    def cut(x: Array, fill: int = 0) -> Array:
        around = ((0, 0), (0, more), *((0, 0),) * (x.ndim - 2))
        x = jnp.pad(x, around, constant_values=fill)
        return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)

    return Held(cut(given.key), cut(given.value), cut(given.segment, NOBODY), cut(given.number))


def _joined(blocks: Float[Array, "n B block K A"], slots: int) -> Float[Array, "B S K A"]:
    """The first so many keys of blocks."""
    x = jnp.moveaxis(blocks, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :slots]
