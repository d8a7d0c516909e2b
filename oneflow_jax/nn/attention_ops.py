"""Dot-product attention, with a choice of three implementations.

| implementation | scores                            | masks                 | use for            |
|----------------|-----------------------------------|-----------------------|--------------------|
| `xla`          | all at once                       | any                   | CPUs, short rows   |
| `blockwise`    | one block of keys at a time       | any                   | long rows          |
| `splash`       | in a TPU kernel, never in memory  | bidirectional, causal | TPUs               |

Where the mesh shards the slots of a row, ring attention with `blockwise` on each device replaces
the configured implementation. The mask of decoding with a KV cache has no fixed pattern, so
`splash` falls back to `blockwise` there.
"""

import functools

import jax

from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.nn import blockwise_attention, partitioning, ring_attention
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Float

IMPLEMENTATIONS = ("xla", "blockwise", "splash")

SPLASH_PATTERNS = (AttentionPattern.BIDIRECTIONAL, AttentionPattern.CAUSAL)
"""The attention patterns that `splash` supports."""

QUERY_AXES = ("rows", "slots", "act_heads", "head_width")
SHARD_AXES = (QUERY_AXES, QUERY_AXES, QUERY_AXES, ("rows", "slots"))


def dot_product_attention(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    mask: AttentionMask,
    implementation: str,
) -> Float[Array, "B L H A"]:
    """Compute softmax(query . key / sqrt(A)) value over the keys that the mask allows.

    K divides H: each key head serves H / K query heads.

    Args:
        query: queries of the L slots.
        key: keys of the S slots.
        value: values of the S slots.
        mask: the attention mask.
        implementation: one of `IMPLEMENTATIONS`.
    """
    if axis := partitioning.sharded_axis("slots"):
        around = functools.partial(ring_attention.attend, axis=axis)
        return partitioning.logical_shard_map(around, SHARD_AXES, QUERY_AXES)(
            query, key, value, mask
        )
    if implementation == "xla":
        return jax.nn.dot_product_attention(query, key, value, mask=mask.materialize()[:, None])
    if implementation == "splash" and mask.pattern in SPLASH_PATTERNS:
        from oneflow_jax.nn import splash_attention  # A slow import: the TPU compiler of Pallas.

        kernel = functools.partial(
            splash_attention.attend, interpret=partitioning.target_platform() != "tpu"
        )
        return partitioning.logical_shard_map(kernel, SHARD_AXES, QUERY_AXES)(
            query, key, value, mask
        )
    return blockwise_attention.attend(query, key, value, mask)
