"""The one function that attends, and the ways to compute it.

| way      | scores                           | knows        | is for                            |
|----------|----------------------------------|--------------|-----------------------------------|
| `dense`  | all at once                      | any `Sight`  | CPUs, short rows                  |
| `blocks` | a block of keys at a time        | any `Sight`  | long rows, anywhere               |
| `splash` | in a TPU kernel, never in memory | two patterns | TPUs                              |

Where the mesh shares out the slots of a row it is a ring of `blocks`, whichever way is configured.
What comes slot by slot, with a cache, follows no pattern: there `splash` is `blocks`.
"""

import functools

import jax

from oneflow_jax.nn import blockwise_attention, partitioning, ring_attention, splash_attention
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Float

IMPLEMENTATIONS = ("dense", "blocks", "splash")

QUERY_AXES = ("rows", "slots", "act_heads", "head_width")
SHARD_AXES = (QUERY_AXES, QUERY_AXES, QUERY_AXES, ("rows", "slots"))


def dot_product_attention(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    mask: AttentionMask,
    implementation: str,
) -> Float[Array, "B L H A"]:
    """softmax(query . key / sqrt(A)) value over the slots in sight; K divides H.

    Args:
        query: of the slots that look.
        key: of the slots that are looked at.
        value: of the same.
        mask: who sees whom.
        implementation: one of `IMPLEMENTATIONS`.
    """
    if axis := partitioning.sharded_axis("slots"):
        around = functools.partial(ring_attention.attend, axis=axis)
        return partitioning.logical_shard_map(around, SHARD_AXES, QUERY_AXES)(
            query, key, value, mask
        )
    if implementation == "dense":
        return jax.nn.dot_product_attention(query, key, value, mask=mask.visible()[:, None])
    if implementation == "splash" and mask.pattern in splash_attention.SUPPORTED_MASKS:
        kernel = functools.partial(
            splash_attention.attend, interpret=partitioning.target_platform() != "tpu"
        )
        return partitioning.logical_shard_map(kernel, SHARD_AXES, QUERY_AXES)(
            query, key, value, mask
        )
    return blockwise_attention.attend(query, key, value, mask)
