"""Ring attention over sharded slots: keys and values move around a ring of devices, queries stay.

Each device attends to its own keys, sends them to the next device, and attends to the keys that it
receives, until it has attended to all keys. In the backward pass, the gradients of keys and values
move together with the keys and values, and are back on their own device after a full round (Liu et
al., Ring Attention with Blockwise Transformers, 2023). No device holds the whole row, and
communication overlaps with computation. Within a device, attention is blockwise.
"""

import functools

import jax
import jax.numpy as jnp

from oneflow_jax.nn import blockwise_attention
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Float, PyTree


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B L K A"],
    value: Float[Array, "B L K A"],
    mask: AttentionMask,
    axis: str,
    score_cap: float,
) -> Float[Array, "B L H A"]:
    """Compute softmax(cap(query . key / sqrt(A))) value over the keys of all devices along `axis`.

    Arguments and result are this device's shard of the slots. The indices in the mask count the
    slots of the whole row. `score_cap` is the limit of the soft cap of scores; 0 without one.
    """
    return _forward(query, key, value, mask, axis, score_cap)[0]


def _forward(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B L K A"],
    value: Float[Array, "B L K A"],
    mask: AttentionMask,
    axis: str,
    score_cap: float,
) -> tuple[Float[Array, "B L H A"], PyTree]:
    queries, delayed_mask = (
        blockwise_attention.group_heads(query, key.shape[2]),
        blockwise_attention.add_barrier(mask, query),
    )

    def attend_and_pass(carry: PyTree, _: None) -> tuple[PyTree, None]:
        partial, kv = carry
        return (
            blockwise_attention.update_softmax(partial, queries, kv, delayed_mask, score_cap),
            _rotate(kv, axis),
        ), None

    start = (
        blockwise_attention.init_softmax(queries),
        blockwise_attention.make_kv_block(key, value, delayed_mask),
    )
    rounds = jax.lax.axis_size(axis) - 1
    (partial, last), _ = jax.lax.scan(attend_and_pass, start, length=rounds)
    whole = blockwise_attention.update_softmax(partial, queries, last, delayed_mask, score_cap)
    attn_output, log_total = blockwise_attention.finalize_softmax(whole, query)
    return attn_output, (query, key, value, mask, attn_output, log_total)


def _backward(
    axis: str, score_cap: float, residuals: PyTree, grad_out: Float[Array, "B L H A"]
) -> tuple[Array, Array, Array, None]:
    query, key, value, mask, attn_output, log_total = residuals
    inputs, delayed_mask = (
        blockwise_attention.prepare_backward(query, attn_output, log_total, grad_out),
        blockwise_attention.add_barrier(mask, grad_out),
    )

    def add_and_pass(carry: PyTree, _: None) -> tuple[PyTree, None]:
        by_query, kv, by_given = carry
        more, grad_kv = blockwise_attention.block_gradients(kv, delayed_mask, inputs, score_cap)
        by_given = _rotate(jax.tree.map(jnp.add, by_given, grad_kv), axis)
        return (by_query + more, _rotate(kv, axis), by_given), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (inputs.query, (key, value)))
    start = (zeros[0], blockwise_attention.make_kv_block(key, value, delayed_mask), zeros[1])
    rounds = jax.lax.axis_size(axis)
    (by_query, _, (by_key, by_value)), _ = jax.lax.scan(add_and_pass, start, length=rounds)
    by_query = by_query.reshape(query.shape).astype(query.dtype)
    return by_query, by_key.astype(key.dtype), by_value.astype(value.dtype), None


attend.defvjp(_forward, _backward)


def _rotate(tree: PyTree, axis: str) -> PyTree:
    """Send this device's arrays to the next device, and return those of the previous device."""
    count = jax.lax.axis_size(axis)
    to = [(n, (n + 1) % count) for n in range(count)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, to), tree)
