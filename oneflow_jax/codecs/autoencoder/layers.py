"""The parts of a convolutional autoencoder, named as diffusers names them.

All of them see pictures as `[B H W c]`, c being whatever number of channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from oneflow_jax.shapes import Array, Float

EPSILON = 1e-6
"""Of all group normalizations."""

WINOGRAD_MIN_CHANNELS = 64
"""Output channels from which `winograd_conv` is faster: on a CPU with AVX-512 it takes 0.76 to 0.94
of the time of XLA's convolution with 64 and 128 channels, forward and backward; 1.07 with 32."""


def conv(features: int, dtype: DTypeLike, name: str | None, kernel_size: int = 3) -> nn.Module:
    """A convolution that keeps height and width."""
    if kernel_size == 1:
        return Conv1x1(features, dtype, name=name)
    return Conv3x3(features, dtype, name=name)


def group_norm(num_groups: int, dtype: DTypeLike, name: str) -> nn.Module:
    """Group normalization; statistics in float32."""
    return GroupNorm(num_groups, dtype, name=name)


class Conv3x3(nn.Module):
    """A 3 x 3 convolution that keeps height and width, with linen's parameters for one."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W d"]:
        """The convolved picture."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        pays = self.features >= WINOGRAD_MIN_CHANNELS and jax.default_backend() == "cpu"
        if pays and jnp.dtype(self.dtype) == jnp.float32 and x.shape[1] % 2 == 0:
            y = winograd_conv(x.astype(self.dtype), kernel)
        else:
            y = _conv2d(x.astype(self.dtype), kernel.astype(self.dtype), ((1, 1), (1, 1)))
        return y + bias.astype(self.dtype)[None, None, None]


def winograd_conv(
    x: Float[Array, "B H W c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "B H W d"]:
    """A 3 x 3 convolution, two rows at once by four products where there are six; H is even.

    Winograd's F(2, 3), Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016,
    section 4.1, along the height alone: sums of rows, and for each of four such sums a 1 x 3
    convolution. Along both axes there are fewer products, but not less time: there are more sums.
    """
    above, first, second, below = (
        jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, row : row + x.shape[1] : 2]
        for row in range(4)
    )
    top, middle, bottom = kernel
    products = (
        _conv2d(rows, taps[None], ((0, 0), (1, 1)))
        for rows, taps in (
            (above - second, top),
            (first + second, 0.5 * (top + bottom + middle)),
            (second - first, 0.5 * (top + bottom - middle)),
            (first - below, bottom),
        )
    )
    a, b, c, d = products
    return jnp.stack([a + b + c, b - c - d], axis=2).reshape(*x.shape[:3], -1)


def _conv2d(
    x: Float[Array, "B H W c"],
    kernel: Float[Array, "h w c d"],
    padding: tuple[tuple[int, int], ...],
) -> Float[Array, "B H W d"]:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class Conv1x1(nn.Module):
    """A 1 x 1 convolution, with linen's parameters for one.

    Multiplied as a matrix of two axes: XLA's CPU backend takes 1.3 to 1.9 times as long for the
    convolution, forward and backward.
    """

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W d"]:
        """Every place mapped by itself."""
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        flat = x.reshape(-1, x.shape[-1]).astype(self.dtype)
        y = flat @ kernel[0, 0].astype(self.dtype) + bias.astype(self.dtype)[None]
        return y.reshape(*x.shape[:-1], self.features)


class GroupNorm(nn.Module):
    """(x - mean) / deviation * scale + bias; mean and deviation are a group of channels'.

    Sums go over places first, channel by channel, and the rest is done with the few numbers that
    are left. linen's GroupNorm puts the groups on an axis of x, which takes XLA's CPU backend 1.3
    to 1.7 times as long, forward and backward.
    """

    groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W c"]:
        """The normalized picture."""
        batch, channels = x.shape[0], x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.float32)

        def grouped(sums: Float[Array, "B c"]) -> Float[Array, "B 1 1 c"]:
            mean = jnp.mean(sums.reshape(batch, self.groups, -1), axis=-1)
            return jnp.repeat(mean, channels // self.groups, axis=-1)[:, None, None]

        mean = grouped(jnp.mean(x, axis=(1, 2)))
        variance = grouped(jnp.mean(x**2, axis=(1, 2))) - mean**2
        gain = lax.rsqrt(jnp.maximum(variance, 0.0) + EPSILON) * scale[None, None, None]
        return ((x - mean) * gain + bias[None, None, None]).astype(self.dtype)


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1 x 1 convolution of x if widths differ."""

    features: int
    groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W d"]:
        """The block's output, `features` wide."""
        y = nn.silu(group_norm(self.groups, self.dtype, "norm1")(x))
        y = conv(self.features, self.dtype, "conv1")(y)
        y = nn.silu(group_norm(self.groups, self.dtype, "norm2")(y))
        y = conv(self.features, self.dtype, "conv2")(y)
        if x.shape[-1] != self.features:
            x = conv(self.features, self.dtype, "conv_shortcut", kernel_size=1)(x)
        return x + y


class SelfAttention(nn.Module):
    """x + attention(norm(x)) over all places of the picture, with one head."""

    groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W c"]:
        """The attended picture."""
        batch, height, width, channels = x.shape
        flat = group_norm(self.groups, self.dtype, "group_norm")(x)
        flat = flat.reshape(batch, height * width, channels)
        query, key, value = (
            nn.Dense(channels, dtype=self.dtype, name=name)(flat)[:, :, None]
            for name in ("to_q", "to_k", "to_v")
        )
        y = jax.nn.dot_product_attention(query, key, value)[:, :, 0]
        return x + nn.Dense(channels, dtype=self.dtype, name="to_out_0")(y).reshape(x.shape)


class Downsample(nn.Module):
    """A 3 x 3 convolution with stride 2; padded below and to the right alone."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B h w c"]:
        """The picture at half its height and width."""
        halved = nn.Conv(
            x.shape[-1],
            (3, 3),
            strides=2,
            padding=((0, 1), (0, 1)),
            dtype=self.dtype,
            name="conv",
        )
        return halved(x)


class Upsample(nn.Module):
    """Every place four times, and a 3 x 3 convolution of that."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B H W c"]:
        """The picture at twice its height and width."""
        return UpsampleConv(self.dtype, name="conv")(x)


class UpsampleConv(nn.Module):
    """A 3 x 3 convolution of a picture whose every place stands four times.

    Of the nine places that a kernel sees there, only four differ. So each of the four places that
    come of one is a 2 x 2 convolution of the small picture, whose kernel has sums of the large
    one's rows and columns. Multiplications: 4/9; time on a CPU, forward and backward: 0.5.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B H W c"]:
        """The large picture, convolved."""
        batch, height, width, channels = x.shape
        shape = (3, 3, channels, channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (channels,))

        def corner(row: int, column: int) -> Float[Array, "B h w c"]:
            taps = _fold_kernel(_fold_kernel(kernel, 0, row), 1, column).astype(self.dtype)
            padding = ((1 - row, row), (1 - column, column))
            return _conv2d(x.astype(self.dtype), taps, padding)

        rows = [jnp.stack([corner(row, 0), corner(row, 1)], axis=3) for row in (0, 1)]
        y = jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, channels)
        return y + bias.astype(self.dtype)[None, None, None]


def _fold_kernel(kernel: Float[Array, "..."], axis: int, phase: int) -> Float[Array, "..."]:
    """Three taps of an axis as two: at even places the last two see the same, else the first."""
    first, second, third = jnp.split(kernel, 3, axis=axis)
    taps = (first + second, third) if phase else (first, second + third)
    return jnp.concatenate(taps, axis=axis)
