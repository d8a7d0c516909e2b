"""Ring attention over sharded slots: keys and values circulate among devices, queries stay.

Each device attends to its own keys, passes them on, and attends to its neighbor's, until it has
seen all of them. In the backward pass the gradients of keys and values circulate with them, and are
back on their device after a full round (Liu et al., Ring Attention with Blockwise Transformers,
2023). No device holds the whole row, and communication overlaps with
computation. Within a device, attention is blockwise.
"""

import functools

import jax
import jax.numpy as jnp

from oneflow_jax.nn import blockwise_attention
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Float, PyTree


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B L K A"],
    value: Float[Array, "B L K A"],
    mask: AttentionMask,
    axis: str,
) -> Float[Array, "B L H A"]:
    """Compute softmax(query . key / sqrt(A)) value over the keys of all devices along `axis`.

    Arguments and result are this device's shard of the slots; the indices in the mask are those of
    the whole row.
    """
    return _forward(query, key, value, mask, axis)[0]


def _forward(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B L K A"],
    value: Float[Array, "B L K A"],
    mask: AttentionMask,
    axis: str,
) -> tuple[Float[Array, "B L H A"], PyTree]:
    queries, near = (
        blockwise_attention.group_heads(query, key.shape[2]),
        blockwise_attention.add_barrier(mask, query),
    )

    def attend_and_pass(carry: PyTree, _: None) -> tuple[PyTree, None]:
        partial, given = carry
        return (
            blockwise_attention.update_softmax(partial, queries, given, near),
            _rotate(given, axis),
        ), None

    start = (
        blockwise_attention.init_softmax(queries),
        blockwise_attention.make_kv_block(key, value, near),
    )
    rounds = jax.lax.axis_size(axis) - 1
    (partial, last), _ = jax.lax.scan(attend_and_pass, start, length=rounds)
    whole = blockwise_attention.update_softmax(partial, queries, last, near)
    found, log_total = blockwise_attention.finalize_softmax(whole, query)
    return found, (query, key, value, mask, found, log_total)


def _backward(
    axis: str, residuals: PyTree, grad_out: Float[Array, "B L H A"]
) -> tuple[Array, Array, Array, None]:
    query, key, value, sight, found, log_total = residuals
    of, near = (
        blockwise_attention.prepare_backward(query, found, log_total, grad_out),
        blockwise_attention.add_barrier(sight, grad_out),
    )

    def add_and_pass(carry: PyTree, _: None) -> tuple[PyTree, None]:
        by_query, given, by_given = carry
        more, also = blockwise_attention.block_gradients(given, near, of)
        by_given = _rotate(jax.tree.map(jnp.add, by_given, also), axis)
        return (by_query + more, _rotate(given, axis), by_given), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (of.query, (key, value)))
    start = (zeros[0], blockwise_attention.make_kv_block(key, value, near), zeros[1])
    rounds = jax.lax.axis_size(axis)
    (by_query, _, (by_key, by_value)), _ = jax.lax.scan(add_and_pass, start, length=rounds)
    by_query = by_query.reshape(query.shape).astype(query.dtype)
    return by_query, by_key.astype(key.dtype), by_value.astype(value.dtype), None


attend.defvjp(_forward, _backward)


def _rotate(tree: PyTree, axis: str) -> PyTree:
    """Receive the previous device's values, and pass this device's on."""
    count = jax.lax.axis_size(axis)
    to = [(n, (n + 1) % count) for n in range(count)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, to), tree)
