"""Layers of a convolutional autoencoder, with the parameter names of diffusers.

All layers take and return `[B H W c]`, where c is the number of channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from oneflow_jax.shapes import Array, Float

EPSILON = 1e-6
"""Epsilon of all group normalizations."""

WINOGRAD_MIN_CHANNELS = 64
"""Minimum number of output channels for which `Conv3x3` uses `winograd_conv`.

On a CPU with AVX-512, `winograd_conv` takes 0.76 to 0.94 times as long as XLA's convolution with 64
and 128 channels, and 1.07 times as long with 32 channels (forward and backward).
"""


def conv(features: int, dtype: DTypeLike, name: str | None, kernel_size: int = 3) -> nn.Module:
    """Return a convolution layer that keeps height and width."""
    if kernel_size == 1:
        return Conv1x1(features, dtype, name=name)
    return Conv3x3(features, dtype, name=name)


def group_norm(num_groups: int, dtype: DTypeLike, name: str) -> nn.Module:
    """Return a group normalization layer, which computes its statistics in float32."""
    return GroupNorm(num_groups, dtype, name=name)


class Conv3x3(nn.Module):
    """3x3 convolution with padding 1 and the parameters of `nn.Conv`."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W d"]:
        """Apply the convolution."""
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
    """Compute a 3x3 convolution by Winograd's algorithm along the height; H must be even.

    This is F(2, 3) of Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016,
    section 4.1. Two output rows need four 1x3 convolutions of sums of input rows. A direct
    convolution would need six 1x3 convolutions. Winograd's algorithm along both axes needs fewer
    multiplications but more additions, and is not faster.
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
    """1x1 convolution with the parameters of `nn.Conv`.

    The layer is computed as a 2-D matmul. On XLA's CPU backend, a convolution takes 1.3 to 1.9
    times as long as the matmul, forward and backward.
    """

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W d"]:
        """Apply the convolution."""
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        flat = x.reshape(-1, x.shape[-1]).astype(self.dtype)
        y = flat @ kernel[0, 0].astype(self.dtype) + bias.astype(self.dtype)[None]
        return y.reshape(*x.shape[:-1], self.features)


class GroupNorm(nn.Module):
    """Group normalization: (x - mean) / std * scale + bias, with mean and std per channel group.

    The layer first averages each channel over height and width, and then averages over the channels
    of a group. `nn.GroupNorm` instead reshapes x to have an axis of groups, which takes 1.3 to 1.7
    times as long on XLA's CPU backend, forward and backward.
    """

    num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W c"]:
        """Normalize `x`."""
        batch, channels = x.shape[0], x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.float32)

        def grouped(sums: Float[Array, "B c"]) -> Float[Array, "B 1 1 c"]:
            mean = jnp.mean(sums.reshape(batch, self.num_groups, -1), axis=-1)
            return jnp.repeat(mean, channels // self.num_groups, axis=-1)[:, None, None]

        mean = grouped(jnp.mean(x, axis=(1, 2)))
        variance = grouped(jnp.mean(x**2, axis=(1, 2))) - mean**2
        gain = lax.rsqrt(jnp.maximum(variance, 0.0) + EPSILON) * scale[None, None, None]
        return ((x - mean) * gain + bias[None, None, None]).astype(self.dtype)


class ResnetBlock(nn.Module):
    """Residual block: x + conv(silu(norm(conv(silu(norm(x)))))).

    If the widths of input and output differ, x passes through a 1x1 convolution before the sum.
    """

    features: int
    num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W d"]:
        """Apply the block; the output has `features` channels."""
        y = nn.silu(group_norm(self.num_groups, self.dtype, "norm1")(x))
        y = conv(self.features, self.dtype, "conv1")(y)
        y = nn.silu(group_norm(self.num_groups, self.dtype, "norm2")(y))
        y = conv(self.features, self.dtype, "conv2")(y)
        if x.shape[-1] != self.features:
            x = conv(self.features, self.dtype, "conv_shortcut", kernel_size=1)(x)
        return x + y


class SelfAttention(nn.Module):
    """Single-head self-attention over all positions: x + attention(norm(x))."""

    num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W c"]:
        """Apply attention with its residual connection."""
        batch, height, width, channels = x.shape
        flat = group_norm(self.num_groups, self.dtype, "group_norm")(x)
        flat = flat.reshape(batch, height * width, channels)
        query, key, value = (
            nn.Dense(channels, dtype=self.dtype, name=name)(flat)[:, :, None]
            for name in ("to_q", "to_k", "to_v")
        )
        y = jax.nn.dot_product_attention(query, key, value)[:, :, 0]
        return x + nn.Dense(channels, dtype=self.dtype, name="to_out_0")(y).reshape(x.shape)


class Downsample(nn.Module):
    """3x3 convolution with stride 2, padded at the bottom and the right only."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B h w c"]:
        """Halve height and width."""
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
    """Nearest-neighbor 2x upsampling followed by a 3x3 convolution."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B H W c"]:
        """Double height and width."""
        return UpsampleConv(self.dtype, name="conv")(x)


class UpsampleConv(nn.Module):
    """Nearest-neighbor 2x upsampling and a 3x3 convolution, computed without the upsampled image.

    A 3x3 window of the upsampled image covers only four different input pixels. So each of the four
    output pixels of an input pixel is a 2x2 convolution of the input. The 2x2 kernels are sums of
    rows and columns of the 3x3 kernel. Compared with the convolution of the upsampled image, this
    takes 4/9 of the multiplications, and half of the time on a CPU, forward and backward.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B H W c"]:
        """Apply upsampling and convolution."""
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
    """Reduce three taps along an axis to two: sum the two taps that cover the same input pixel.

    The last two taps are summed at even output positions (`phase` 0), and the first two taps at odd
    output positions (`phase` 1).
    """
    first, second, third = jnp.split(kernel, 3, axis=axis)
    taps = (first + second, third) if phase else (first, second + third)
    return jnp.concatenate(taps, axis=axis)
