"""Convolutional encoder and decoder, with residual blocks at several resolutions (levels)."""

import flax.linen as nn
from jax.typing import DTypeLike

from oneflow_jax.codecs.autoencoder import layers
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.shapes import Array, Float


class Stage(nn.Module):
    """Residual blocks of one level, followed by downsampling or upsampling.

    Attributes:
        features: number of output channels.
        num_blocks: number of residual blocks.
        num_groups: number of groups of group normalization.
        resize: "downsamplers", "upsamplers", or "" for no change of size.
        dtype: data type of the computation.
    """

    features: int
    num_blocks: int
    num_groups: int
    resize: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B h w d"]:
        """Apply the blocks and the resizing, and return the input of the next level."""
        for n in range(self.num_blocks):
            block = layers.ResnetBlock(
                self.features, self.num_groups, self.dtype, name=f"resnets_{n}"
            )
            x = block(x)
        if not self.resize:
            return x
        resizer = layers.Downsample if self.resize == "downsamplers" else layers.Upsample
        return resizer(self.dtype, name=f"{self.resize}_0")(x)


class MidBlock(nn.Module):
    """The lowest-resolution level: a residual block, optional self-attention, a residual block."""

    features: int
    num_groups: int
    use_attention: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        """Apply the blocks; the output has the shape of `x`."""
        x = layers.ResnetBlock(self.features, self.num_groups, self.dtype, name="resnets_0")(x)
        if self.use_attention:
            x = layers.SelfAttention(self.num_groups, self.dtype, name="attentions_0")(x)
        return layers.ResnetBlock(self.features, self.num_groups, self.dtype, name="resnets_1")(x)


class Encoder(nn.Module):
    """Encoder: maps images to `out_channels` channels on the latent grid."""

    architecture: Architecture
    out_channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w c"]:
        """Encode pixels in [-1, 1]."""
        shape, dtype = self.architecture, self.dtype
        widths, groups = shape.block_out_channels, shape.norm_num_groups
        x = layers.conv(widths[0], dtype, "conv_in")(pixels)
        for n, width in enumerate(widths):
            resize = "" if n == len(widths) - 1 else "downsamplers"
            name = f"down_blocks_{n}"
            x = Stage(width, shape.layers_per_block, groups, resize, dtype, name=name)(x)
        x = MidBlock(widths[-1], groups, shape.mid_block_add_attention, dtype, name="mid_block")(x)
        x = nn.silu(layers.group_norm(groups, dtype, "conv_norm_out")(x))
        return layers.conv(self.out_channels, dtype, "conv_out")(x)


class Decoder(nn.Module):
    """Decoder: maps latents to images."""

    architecture: Architecture
    dtype: DTypeLike

    @nn.compact
    def __call__(self, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W 3"]:
        """Decode latents to pixels, approximately in [-1, 1]."""
        shape, dtype = self.architecture, self.dtype
        widths, groups = shape.block_out_channels[::-1], shape.norm_num_groups
        x = layers.conv(widths[0], dtype, "conv_in")(latents)
        x = MidBlock(widths[0], groups, shape.mid_block_add_attention, dtype, name="mid_block")(x)
        for n, width in enumerate(widths):
            resize = "" if n == len(widths) - 1 else "upsamplers"
            name = f"up_blocks_{n}"
            x = Stage(width, shape.layers_per_block + 1, groups, resize, dtype, name=name)(x)
        x = nn.silu(layers.group_norm(groups, dtype, "conv_norm_out")(x))
        return layers.conv(shape.out_channels, dtype, "conv_out")(x)
