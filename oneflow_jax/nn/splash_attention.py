"""Attention with splash attention, JAX's Pallas kernel for TPUs, which skips masked blocks.

The kernel supports segments, and patterns that are equal for all rows: bidirectional and causal.
Scores stay in on-chip memory, and blocks that the mask excludes are not computed.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.nn.attention_mask import INVISIBLE, AttentionMask
from oneflow_jax.shapes import Array, Float

MASKS = {
    AttentionPattern.BIDIRECTIONAL: masks.FullMask,
    AttentionPattern.CAUSAL: masks.CausalMask,
}
"""The kernel's class of masks for each attention pattern of `attention_ops.SPLASH_PATTERNS`."""

LANES = 128
"""Row lengths and head widths are padded to a multiple of this number, as the kernel requires."""

BLOCK_SIZES = (512, 384, 256, LANES)
"""Block sizes in slots; the first one that divides the row's length is used."""


def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B L K A"],
    value: Float[Array, "B L K A"],
    mask: AttentionMask,
    *,
    score_cap: float,
    interpret: bool,
) -> Float[Array, "B L H A"]:
    """Compute softmax(cap(query . key / sqrt(A))) value with a mask that the kernel supports.

    `score_cap` is the limit of the soft cap of scores; 0 without one. With `interpret`, the kernel
    runs in interpreter mode on any device; tests use this.
    """
    _, length, heads, width = query.shape
    slots, channels = -length % LANES, -width % LANES
    query = query * width**-0.5

    def filled(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, slots), (0, 0), (0, channels)))
        return jnp.moveaxis(x, 2, 1)

    # Padded slots attend only to one another, and the slice below removes them.
    segment = jnp.pad(mask.segment, ((0, 0), (0, slots)), constant_values=INVISIBLE)
    kernel = _make_kernel(mask.pattern, length + slots, heads, score_cap, interpret)
    attn_output = jax.vmap(kernel)(
        filled(query), filled(key), filled(value), kernels.SegmentIds(segment, segment)
    )
    return jnp.moveaxis(attn_output, 1, 2)[:, :length, :, :width]


def _make_kernel(
    pattern: AttentionPattern, length: int, heads: int, score_cap: float, interpret: bool
) -> kernels.SplashAttentionKernel:
    size = next(size for size in BLOCK_SIZES if length % size == 0)
    sizes = kernels.BlockSizes(
        block_q=size,
        block_kv=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_q_dq=size,
        block_kv_dq=size,
    )
    mask = masks.MultiHeadMask([MASKS[pattern]((length, length))] * heads)
    return kernels.make_splash_mha_single_device(
        mask, block_sizes=sizes, attn_logits_soft_cap=score_cap or None, interpret=interpret
    )
