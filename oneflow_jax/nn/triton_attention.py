"""Attention with JAX's Pallas kernel for NVIDIA GPUs, which Triton compiles.

The kernel supports segments, and patterns that are equal for all rows: bidirectional and causal.
Scores stay in on-chip memory, forward and backward. The kernel computes the scores of all blocks,
except those above the diagonal of the causal pattern.
"""

import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import attention as kernels

from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.nn.attention_mask import INVISIBLE, AttentionMask
from oneflow_jax.shapes import Array, Float

MIN_WIDTH = 16
"""Head widths are padded to this number, the smallest side of a matrix product in Triton."""

BLOCK_SIZE = 64
"""Block size in slots; row lengths are padded to a multiple of it."""

MAX_HEAD_BYTES = 256
"""Bytes of a head, beyond which blocks are half as long: otherwise the blocks of an RTX 4090, which
has 99 KiB of shared memory, would not fit."""

NUM_WARPS = 8
"""Warps of each program: with 4, heads of width 128 would need more registers than there are."""


def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B L K A"],
    value: Float[Array, "B L K A"],
    mask: AttentionMask,
    *,
    interpret: bool,
) -> Float[Array, "B L H A"]:
    """Compute softmax(query . key / sqrt(A)) value with a mask whose pattern the kernel supports.

    K divides H: the keys and values of each key head are repeated for its H / K query heads.
    With `interpret`, the kernel runs in interpreter mode on any device; tests use this.
    """
    _, length, heads, width = query.shape
    slots, channels = -length % BLOCK_SIZE, max(0, MIN_WIDTH - width)

    def fill(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, slots), (0, 0), (0, channels)))

    def repeat(x: Array) -> Array:
        return fill(jnp.repeat(x, heads // x.shape[2], axis=2))

    # Padded slots attend only to one another, and the slice below removes them.
    segment = jnp.pad(mask.segment, ((0, 0), (0, slots)), constant_values=INVISIBLE)
    attn_output = kernels.mha(
        fill(query),
        repeat(key),
        repeat(value),
        segment,
        sm_scale=width**-0.5,
        causal=mask.pattern is AttentionPattern.CAUSAL,
        block_sizes=_choose_block_sizes(length + slots, width * query.dtype.itemsize),
        num_warps=NUM_WARPS,
        interpret=interpret,
    )
    return attn_output[:, :length, :, :width]


def _choose_block_sizes(length: int, head_bytes: int) -> kernels.BlockSizes:
    """Return the block sizes for a row's length, a multiple of `BLOCK_SIZE`, and bytes of a head.

    The forward pass holds fewer arrays on chip than the backward pass, so it has larger blocks of
    queries where the row's length allows them.
    """
    size = BLOCK_SIZE if head_bytes <= MAX_HEAD_BYTES else BLOCK_SIZE // 2
    return kernels.BlockSizes(
        block_q=2 * size if length % (2 * size) == 0 else size,
        block_k=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_q_dq=size,
        block_kv_dq=size,
    )
