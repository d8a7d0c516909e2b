"""Blockwise attention: only the scores of one block of keys are in memory at a time, not all L x S.

The softmax is online: a scan over blocks keeps the maximum score, the sum of weights and the sum of
weighted values so far (Milakov & Gimelshein, Online Normalizer Calculation for Softmax, 2018). The
backward pass recomputes the weights from the saved logsumexp (Dao et al., FlashAttention, 2022,
algorithm 4), so its memory is O(L x block) too. Scores and sums are float32 for every dtype of the
network.
"""

import functools
import math

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.nn import soft_cap
from oneflow_jax.nn.attention_mask import INVISIBLE, AttentionMask
from oneflow_jax.shapes import Array, Bool, Float, Int, PyTree

BLOCK_K = 512
"""Number of keys in a block."""

MASK_VALUE = jnp.finfo(jnp.float32).min
"""Value of the running maximum before any key. It is finite, because inf - inf would be NaN."""

GroupedHeads = Float[Array, "B L K G A"]
"""Queries, or an array of their shape, grouped by the key head they use: H = K G."""


@flax.struct.dataclass
class KVBlock:
    """Keys and values with their part of the mask; ring attention sends blocks between devices."""

    key: Float[Array, "B S K A"]
    value: Float[Array, "B S K A"]
    segment: Int[Array, "B S"]
    index: Int[Array, "B S"]


@flax.struct.dataclass
class OnlineSoftmax:
    """State of an online softmax after some of the keys.

    Attributes:
        acc: sum of values, weighted by exp(score - row_max).
        row_max: maximum score so far; `MASK_VALUE` before the first visible key.
        row_sum: sum of the weights.
    """

    acc: Float[Array, "B K G L A"]
    row_max: Float[Array, "B K G L"]
    row_sum: Float[Array, "B K G L"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    mask: AttentionMask,
    score_cap: float,
) -> Float[Array, "B L H A"]:
    """Compute softmax(cap(query . key / sqrt(A))) value over the allowed keys; K divides H.

    `score_cap` is the limit of the soft cap (`nn.soft_cap`) of scores; 0 without one.
    """
    return _forward(query, key, value, mask, score_cap)[0]


def make_kv_block(
    key: Float[Array, "B S K A"], value: Float[Array, "B S K A"], mask: AttentionMask
) -> KVBlock:
    """Combine keys and values with their part of the attention mask."""
    return KVBlock(key, value, mask.key_segment, mask.key_index)


def add_barrier(mask: AttentionMask, dependency: Array) -> AttentionMask:
    """Make the mask depend on `dependency`, so that XLA cannot compute it before that array.

    Otherwise the boolean masks would not depend on the scan over layers. XLA would hoist them out
    of the loop and hold the masks of all blocks in memory at once.
    """
    return jax.lax.optimization_barrier((mask, dependency))[0]


def init_softmax(query: GroupedHeads) -> OnlineSoftmax:
    """Return the state before the first key; only the shape of `query` is used."""
    rows, slots, heads, group, width = query.shape
    over = (rows, heads, group, slots)
    return OnlineSoftmax(jnp.zeros((*over, width)), jnp.full(over, MASK_VALUE), jnp.zeros(over))


def update_softmax(
    state: OnlineSoftmax,
    query: GroupedHeads,
    kv: KVBlock,
    mask: AttentionMask,
    score_cap: float,
) -> OnlineSoftmax:
    """Update the state with the keys in `kv`, block by block; of `mask`, use the queries' part."""

    def absorb(so_far: OnlineSoftmax, block: KVBlock) -> tuple[OnlineSoftmax, None]:
        scores = compute_scores(query, block.key, score_cap)
        seen = _visible_keys(block, mask)
        greatest = jnp.maximum(
            so_far.row_max, jnp.max(scores, axis=-1, where=seen, initial=MASK_VALUE)
        )
        weights = jnp.where(seen, jnp.exp(scores - greatest[..., None]), 0.0)
        shrunk = jnp.exp(so_far.row_max - greatest)
        values = _einsum_f32("bkgls,bska->bkgla", weights.astype(block.value.dtype), block.value)
        return OnlineSoftmax(
            acc=so_far.acc * shrunk[..., None] + values,
            row_max=greatest,
            row_sum=so_far.row_sum * shrunk + jnp.sum(weights, axis=-1),
        ), None

    return jax.lax.scan(absorb, state, _split_blocks(kv))[0]


def finalize_softmax(
    state: OnlineSoftmax, query: Float[Array, "B L H A"]
) -> tuple[Float[Array, "B L H A"], Float[Array, "B K G L"]]:
    """Return the output of attention after all keys, and the logsumexp of the scores."""
    attn_output = jnp.moveaxis(state.acc / state.row_sum[..., None], 3, 1)
    return attn_output.reshape(query.shape).astype(query.dtype), state.row_max + jnp.log(
        state.row_sum
    )


@flax.struct.dataclass
class BackwardInputs:
    """Inputs of the backward pass for each query.

    Attributes:
        query: the queries.
        grad_out: gradient of the loss with respect to the output.
        logsumexp: logsumexp of the scores.
        delta: sum of output times grad_out, per query.
    """

    query: GroupedHeads
    grad_out: GroupedHeads
    logsumexp: Float[Array, "B K G L"]
    delta: Float[Array, "B K G L"]


def prepare_backward(
    query: Float[Array, "B L H A"],
    out: Float[Array, "B L H A"],
    logsumexp: Float[Array, "B K G L"],
    grad_out: Float[Array, "B L H A"],
) -> BackwardInputs:
    """Group the backward pass's inputs by key head, and compute delta."""
    heads = logsumexp.shape[1]
    mean = jnp.sum(out.astype(jnp.float32) * grad_out.astype(jnp.float32), axis=-1)
    mean = jnp.moveaxis(group_heads(mean[..., None], heads)[..., 0], 1, 3)
    return BackwardInputs(group_heads(query, heads), group_heads(grad_out, heads), logsumexp, mean)


def block_gradients(
    kv: KVBlock, mask: AttentionMask, inputs: BackwardInputs, score_cap: float
) -> tuple[GroupedHeads, tuple[Float[Array, "B S K A"], Float[Array, "B S K A"]]]:
    """Compute what `kv` contributes to dQ, and the gradients (dK, dV) of `kv`, all in float32."""
    scale = 1 / math.sqrt(inputs.query.shape[-1])
    dtype = inputs.query.dtype

    def add(by_query: GroupedHeads, block: KVBlock) -> tuple[GroupedHeads, tuple[Array, Array]]:
        scores = compute_scores(inputs.query, block.key, score_cap)
        seen = _visible_keys(block, mask)
        weights = jnp.where(seen, jnp.exp(scores - inputs.logsumexp[..., None]), 0.0)
        by_weight = _einsum_f32("blkga,bska->bkgls", inputs.grad_out, block.value)
        by_score = weights * (by_weight - inputs.delta[..., None]) * scale
        by_score = soft_cap.backward(by_score, scores, score_cap).astype(dtype)
        by_value = _einsum_f32("bkgls,blkga->bska", weights.astype(dtype), inputs.grad_out)
        by_key = _einsum_f32("bkgls,blkga->bska", by_score, inputs.query)
        by_query = by_query + _einsum_f32("bkgls,bska->blkga", by_score, block.key)
        return by_query, (by_key, by_value)

    start = jnp.zeros(inputs.query.shape, jnp.float32)
    by_query, by_blocks = jax.lax.scan(add, start, _split_blocks(kv))
    slots = kv.key.shape[1]
    return by_query, jax.tree.map(lambda x: _merge_blocks(x, slots), by_blocks)


def group_heads(x: Float[Array, "B L H A"], kv_heads: int) -> GroupedHeads:
    """Group query heads by the key head that they use; `kv_heads` is the number of key heads."""
    return x.reshape(*x.shape[:2], kv_heads, -1, x.shape[-1])


def compute_scores(
    query: GroupedHeads, key: Float[Array, "B S K A"], score_cap: float
) -> Float[Array, "B K G L S"]:
    """Compute cap(query . key / sqrt(A)) in float32."""
    scores = _einsum_f32("blkga,bska->bkgls", query, key) / math.sqrt(query.shape[-1])
    return soft_cap.apply(scores, score_cap)


def _forward(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    mask: AttentionMask,
    score_cap: float,
) -> tuple[Float[Array, "B L H A"], PyTree]:
    queries, delayed_mask = group_heads(query, key.shape[2]), add_barrier(mask, query)
    kv = make_kv_block(key, value, delayed_mask)
    whole = update_softmax(init_softmax(queries), queries, kv, delayed_mask, score_cap)
    attn_output, log_total = finalize_softmax(whole, query)
    return attn_output, (query, key, value, mask, attn_output, log_total)


def _backward(
    score_cap: float, residuals: PyTree, grad_out: Float[Array, "B L H A"]
) -> tuple[Array, Array, Array, None]:
    query, key, value, mask, attn_output, log_total = residuals
    inputs, delayed_mask = (
        prepare_backward(query, attn_output, log_total, grad_out),
        add_barrier(mask, grad_out),
    )
    by_query, (by_key, by_value) = block_gradients(
        make_kv_block(key, value, delayed_mask), delayed_mask, inputs, score_cap
    )
    by_query = by_query.reshape(query.shape).astype(query.dtype)
    return by_query, by_key.astype(key.dtype), by_value.astype(value.dtype), None


attend.defvjp(_forward, _backward)


def _visible_keys(block: KVBlock, mask: AttentionMask) -> Bool[Array, "B 1 1 L S"]:
    """Return a mask that is True for the visible keys of a block."""
    seen = mask.replace(key_segment=block.segment, key_index=block.index).materialize()
    return seen[:, None, None]


def _einsum_f32(subscripts: str, lhs: Array, rhs: Array) -> Array:
    return jnp.einsum(subscripts, lhs, rhs, preferred_element_type=jnp.float32)


def _split_blocks(kv: KVBlock) -> KVBlock:
    """Split keys into n blocks, `[n B block ...]`; no query attends to the last block's padding."""
    slots = kv.index.shape[1]
    size = min(BLOCK_K, slots)
    more = -slots % size

    def cut(x: Array, fill: int = 0) -> Array:
        around = ((0, 0), (0, more), *((0, 0),) * (x.ndim - 2))
        x = jnp.pad(x, around, constant_values=fill)
        return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)

    return KVBlock(cut(kv.key), cut(kv.value), cut(kv.segment, INVISIBLE), cut(kv.index))


def _merge_blocks(blocks: Float[Array, "n B block K A"], num_keys: int) -> Float[Array, "B S K A"]:
    """Join the blocks of `_split_blocks`, and return the first `num_keys` keys."""
    x = jnp.moveaxis(blocks, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :num_keys]
