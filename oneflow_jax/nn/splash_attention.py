"""Attention by JAX's Pallas kernel for TPUs, which skips blocks that are masked.

The kernel supports segments, and masks that are equal for all rows: bidirectional and causal ones.
Scores never leave the chip, and blocks that the mask excludes are not computed.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.nn.attention_mask import INVISIBLE, AttentionMask
from oneflow_jax.shapes import Array, Float

SUPPORTED_MASKS = {
    AttentionPattern.BIDIRECTIONAL: masks.FullMask,
    AttentionPattern.CAUSAL: masks.CausalMask,
}
"""The kernel's mask of each attention pattern that it supports."""

LANES = 128
"""The kernel needs row lengths and head widths that are multiples of this."""

BLOCK_SIZES = (512, 384, 256, LANES)
"""Slots in a block: the first of these that divides the row's length is used."""


def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B L K A"],
    value: Float[Array, "B L K A"],
    mask: AttentionMask,
    *,
    interpret: bool,
) -> Float[Array, "B L H A"]:
    """Compute softmax(query . key / sqrt(A)) value with a mask whose pattern the kernel supports.

    `interpret` runs the kernel in interpreter mode on any device, for tests.
    """
    _, length, heads, width = query.shape
    slots, channels = -length % LANES, -width % LANES
    query = query * width**-0.5

    def filled(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, slots), (0, 0), (0, channels)))
        return jnp.moveaxis(x, 2, 1)

    # Padded slots attend only to one another, and are cut off afterwards.
    segment = jnp.pad(mask.segment, ((0, 0), (0, slots)), constant_values=INVISIBLE)
    kernel = _make_kernel(mask.pattern, length + slots, heads, interpret)
    found = jax.vmap(kernel)(
        filled(query), filled(key), filled(value), kernels.SegmentIds(segment, segment)
    )
    return jnp.moveaxis(found, 1, 2)[:, :length, :, :width]


def _make_kernel(
    pattern: AttentionPattern, length: int, heads: int, interpret: bool
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
    mask = masks.MultiHeadMask([SUPPORTED_MASKS[pattern]((length, length))] * heads)
    return kernels.make_splash_mha_single_device(mask, block_sizes=sizes, interpret=interpret)
