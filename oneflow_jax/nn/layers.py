"""Layers of the transformer other than attention, and the embedding of the time t."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.nn import partitioning
from oneflow_jax.shapes import Array, Float

TIME_SCALE = 1000.0
"""Factor of t in the time embedding. The sinusoids are those of diffusion models with 1,000 steps;
without the factor they would hardly change over [0, 1]."""


class Linear(nn.Module):
    """Linear map x W (+ b) over the last `num_input_axes` axes of x, with logical axis names.

    It replaces linen's DenseGeneral, which initializes a flattened kernel and so loses the logical
    axis names of the unflattened kernel under a mesh.

    Attributes:
        features: shape of the output's new axes.
        axes: logical names of the kernel's axes, inputs first.
        dtype: type of the multiplication; the parameters are float32.
        num_input_axes: number of axes of x that are contracted.
        use_bias: whether to add b.
        zero_init: whether the kernel is initialized to zero.
    """

    features: tuple[int, ...]
    axes: tuple[str | None, ...]
    dtype: DTypeLike
    num_input_axes: int = 1
    use_bias: bool = False
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Apply the map to the last axes of x; the leading axes are batch axes."""
        n = self.num_input_axes
        shape = (*x.shape[-n:], *self.features)
        ins, outs = tuple(range(n)), tuple(range(n, len(shape)))
        init = nn.initializers.lecun_normal(in_axis=ins, out_axis=outs)
        init = nn.initializers.zeros if self.zero_init else init
        kernel = self.param("kernel", nn.with_logical_partitioning(init, self.axes), shape)
        # Multiply 2-D matrices: without flattening the axes, XLA's CPU backend takes 1.7 times as
        # long, forward and backward.
        flat = x.reshape(-1, math.prod(shape[:n])).astype(self.dtype)
        kernel = partitioning.all_gather_fsdp(kernel.astype(self.dtype), self.axes)
        y = flat @ kernel.reshape(flat.shape[-1], -1)
        if self.use_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[n:])
            y = y + self.param("bias", zeros, self.features).astype(self.dtype).reshape(1, -1)
        return y.reshape(*x.shape[:-n], *self.features)


NORM_EPS = 1e-6
"""Default of the number that is added to the mean square in norms."""


def rms_norm(
    dtype: DTypeLike, axis: str = "act_width", name: str | None = None, eps: float = NORM_EPS
) -> nn.RMSNorm:
    """Create an RMSNorm over the last axis; its statistics are float32."""
    init = nn.with_logical_partitioning(nn.initializers.ones, (axis,))
    return nn.RMSNorm(epsilon=eps, dtype=dtype, scale_init=init, name=name)


ACTIVATIONS = {"silu": nn.silu, "gelu_tanh": functools.partial(nn.gelu, approximate=True)}
"""Activations of the MLP: SiLU, or the approximation of GELU by tanh."""


def identity(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x: it stands for a layer that a network does not have."""
    return x


class GatedMLP(nn.Module):
    """W_2 (f(W_g x) * W_1 x), Shazeer, GLU Variants Improve Transformer, eq. 6.

    Attributes:
        hidden: F of `shapes`.
        dtype: data type of matrix products.
        activation: the name of f, one of `ACTIVATIONS`: "silu" is SwiGLU, "gelu_tanh" GeGLU.
    """

    hidden: int
    dtype: DTypeLike
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Apply the MLP to every slot."""
        width = x.shape[-1]
        axes = ("width", "hidden")
        gate = Linear((self.hidden,), axes, self.dtype, name="gate")(x)
        up = Linear((self.hidden,), axes, self.dtype, name="up")(x)
        x = partitioning.with_logical_constraint(
            ACTIVATIONS[self.activation](gate) * up, ("rows", "slots", "act_hidden")
        )
        return Linear((width,), ("hidden", "width"), self.dtype, name="down")(x)


class TimestepEmbedding(nn.Module):
    """Embedding of each slot's time: sinusoids of 1000 t through a small MLP.

    With `zero_init`, the embedding is 0 until training changes it.
    """

    width: int
    dtype: DTypeLike
    frequencies: int = 128
    zero_init: bool = False

    @nn.compact
    def __call__(self, time: Float[Array, "B L"]) -> Float[Array, "B L D"]:
        """Return, for each slot, the embedding of its time."""
        x = sinusoidal_embedding(TIME_SCALE * time, self.frequencies).astype(self.dtype)
        up = Linear((self.width,), (None, "width"), self.dtype, use_bias=True, name="up")
        axes, zero_init = ("width", None), self.zero_init
        out = Linear(
            (self.width,), axes, self.dtype, use_bias=True, zero_init=zero_init, name="out"
        )
        # Without this constraint XLA shards the hidden width along fsdp, like the kernel, and
        # gathers the rows of the whole batch.
        hidden = partitioning.with_logical_constraint(
            nn.silu(up(x)), ("rows", "slots", "act_width")
        )
        return out(hidden)


def sinusoidal_embedding(values: Float[Array, "*b"], frequencies: int) -> Float[Array, "*b n"]:
    """Return cosines and sines of `values` at wavelengths from 2 pi to 20,000 pi, in float32."""
    rates = jnp.exp(-math.log(10_000.0) * jnp.arange(frequencies) / frequencies)
    angles = jnp.multiply.outer(values.astype(jnp.float32), rates.astype(jnp.float32))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
