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
from oneflow_jax.nn.attention_mask import Sight
from oneflow_jax.shapes import Array, Float

WAYS = ("dense", "blocks", "splash")

QUERIES = ("rows", "slots", "act_heads", "head_width")
BY_DEVICE = (QUERIES, QUERIES, QUERIES, ("rows", "slots"))


def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    sight: Sight,
    way: str,
) -> Float[Array, "B L H A"]:
    """softmax(query . key / sqrt(A)) value over the slots in sight; K divides H.

    Args:
        query: of the slots that look.
        key: of the slots that are looked at.
        value: of the same.
        sight: who sees whom.
        way: one of `WAYS`.
    """
    if axis := partitioning.shared_out("slots"):
        around = functools.partial(ring_attention.attend, axis=axis)
        return partitioning.by_device(around, BY_DEVICE, QUERIES)(query, key, value, sight)
    if way == "dense":
        return jax.nn.dot_product_attention(query, key, value, mask=sight.visible()[:, None])
    if way == "splash" and sight.pattern in splash_attention.PATTERNS:
        kernel = functools.partial(
            splash_attention.attend, interpret=partitioning.platform() != "tpu"
        )
        return partitioning.by_device(kernel, BY_DEVICE, QUERIES)(query, key, value, sight)
    return blockwise_attention.attend(query, key, value, sight)
