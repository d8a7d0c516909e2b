"""Encoder and decoder: levels of residual blocks, each half as high and wide as the one before."""

import flax.linen as nn
from jax.typing import DTypeLike

from oneflow_jax.codecs.autoencoder import layers
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.shapes import Array, Float


class Stage(nn.Module):
    """Residual blocks, then a change of size, if any.

    Attributes:
        features: width.
        blocks: how many.
        groups: of normalization.
        resize: "downsamplers", "upsamplers" or "".
        dtype: to compute in.
    """

    features: int
    blocks: int
    groups: int
    resize: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B h w d"]:
        """The next level's input."""
        for n in range(self.blocks):
            block = layers.ResnetBlock(self.features, self.groups, self.dtype, name=f"resnets_{n}")
            x = block(x)
        if not self.resize:
            return x
        resizer = layers.Downsample if self.resize == "downsamplers" else layers.Upsample
        return resizer(self.dtype, name=f"{self.resize}_0")(x)


class MidBlock(nn.Module):
    """The innermost level: two residual blocks, and attention between them."""

    features: int
    groups: int
    attends: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        """The picture, as wide as before."""
        x = layers.ResnetBlock(self.features, self.groups, self.dtype, name="resnets_0")(x)
        if self.attends:
            x = layers.SelfAttention(self.groups, self.dtype, name="attentions_0")(x)
        return layers.ResnetBlock(self.features, self.groups, self.dtype, name="resnets_1")(x)


class Encoder(nn.Module):
    """Pictures to `out_channels` numbers for each place of the latent grid."""

    shape: Architecture
    out_channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w c"]:
        """The numbers of each place; pixels are from -1 to 1."""
        shape, dtype = self.shape, self.dtype
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
    """Latents to pictures."""

    shape: Architecture
    dtype: DTypeLike

    @nn.compact
    def __call__(self, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W 3"]:
        """Pixels, about -1 to 1."""
        shape, dtype = self.shape, self.dtype
        widths, groups = shape.block_out_channels[::-1], shape.norm_num_groups
        x = layers.conv(widths[0], dtype, "conv_in")(latents)
        x = MidBlock(widths[0], groups, shape.mid_block_add_attention, dtype, name="mid_block")(x)
        for n, width in enumerate(widths):
            resize = "" if n == len(widths) - 1 else "upsamplers"
            name = f"up_blocks_{n}"
            x = Stage(width, shape.layers_per_block + 1, groups, resize, dtype, name=name)(x)
        x = nn.silu(layers.group_norm(groups, dtype, "conv_norm_out")(x))
        return layers.conv(shape.out_channels, dtype, "conv_out")(x)
