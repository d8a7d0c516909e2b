"""The parts of a transformer block that know nothing of attention, and the clock's embedding."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.nn import partitioning
from oneflow_jax.shapes import Array, Float, Int

ROPE_THETA_ORDER = 10_000.0
ROPE_THETA_GRID = 100.0
"""Longest wavelength over 2 pi of the rotations: documents are long, pictures are not."""

TIME_SCALE = 1000.0
"""Sinusoids made for diffusion's 1,000 steps hardly change over [0, 1]; the clock is stretched."""


class Linear(nn.Module):
    """x W (+ b) over the last `inputs` axes of x, with named axes for `sharding.RULES`.

    (linen's DenseGeneral flattens its kernel to initialize it, which the names of the unflattened
    kernel do not survive under a mesh.)

    Attributes:
        features: shape of the output's new axes.
        axes: logical names of the kernel's axes, inputs first.
        dtype: to multiply in; the parameters are float32.
        inputs: how many axes of x are summed over.
        use_bias: whether to add b.
        zero: whether the kernel starts at zero.
    """

    features: tuple[int, ...]
    axes: tuple[str | None, ...]
    dtype: DTypeLike
    inputs: int = 1
    use_bias: bool = False
    zero: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The mapped x; its leading axes stay."""
        n = self.inputs
        shape = (*x.shape[-n:], *self.features)
        ins, outs = tuple(range(n)), tuple(range(n, len(shape)))
        init = nn.initializers.lecun_normal(in_axis=ins, out_axis=outs)
        init = nn.initializers.zeros if self.zero else init
        kernel = self.param("kernel", nn.with_logical_partitioning(init, self.axes), shape)
        # Two-axis matrices: XLA's CPU backend takes 1.7 times as long for the same product, forward
        # and backward, with the axes apart.
        flat = x.reshape(-1, math.prod(shape[:n])).astype(self.dtype)
        kernel = partitioning.all_gather_fsdp(kernel.astype(self.dtype), self.axes)
        y = flat @ kernel.reshape(flat.shape[-1], -1)
        if self.use_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[n:])
            y = y + self.param("bias", zeros, self.features).astype(self.dtype).reshape(1, -1)
        return y.reshape(*x.shape[:-n], *self.features)


def rms_norm(dtype: DTypeLike, axis: str = "act_width", name: str | None = None) -> nn.RMSNorm:
    """Root-mean-square normalization over the last axis; statistics in float32."""
    init = nn.with_logical_partitioning(nn.initializers.ones, (axis,))
    return nn.RMSNorm(dtype=dtype, scale_init=init, name=name)


class SwiGLU(nn.Module):
    """W_2 (silu(W_g x) * W_1 x), Shazeer, GLU Variants Improve Transformer, eq. 6."""

    hidden: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """The MLP of every slot by itself."""
        width = x.shape[-1]
        axes = ("width", "hidden")
        gate = Linear((self.hidden,), axes, self.dtype, name="gate")(x)
        up = Linear((self.hidden,), axes, self.dtype, name="up")(x)
        x = partitioning.with_logical_constraint(
            nn.silu(gate) * up, ("rows", "slots", "act_hidden")
        )
        return Linear((width,), ("hidden", "width"), self.dtype, name="down")(x)


class TimestepEmbedding(nn.Module):
    """A vector for the time of each slot: sinusoids of 1000 t through a small MLP."""

    width: int
    dtype: DTypeLike
    frequencies: int = 128

    @nn.compact
    def __call__(self, clock: Float[Array, "B L"]) -> Float[Array, "B L D"]:
        """The embedding that is added to every slot."""
        x = sinusoidal_embedding(TIME_SCALE * clock, self.frequencies).astype(self.dtype)
        up = Linear((self.width,), (None, "width"), self.dtype, use_bias=True, name="up")
        out = Linear((self.width,), ("width", None), self.dtype, use_bias=True, name="out")
        # Without this XLA leaves the hidden width where the kernel's is, along fsdp, and gathers
        # the rows of the whole batch for it.
        hidden = partitioning.with_logical_constraint(
            nn.silu(up(x)), ("rows", "slots", "act_width")
        )
        return out(hidden)


def sinusoidal_embedding(values: Float[Array, "*b"], frequencies: int) -> Float[Array, "*b n"]:
    """Cosines and sines of `values` at wavelengths from 2 pi to 10,000 * 2 pi, in float32."""
    rates = jnp.exp(-math.log(10_000.0) * jnp.arange(frequencies) / frequencies)
    angles = jnp.multiply.outer(values.astype(jnp.float32), rates.astype(jnp.float32))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def rope_angles(
    position: Int[Array, "B L 3"], head_width: int
) -> tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]]:
    """Cosine and sine of each slot's rotary angles: half for order, a quarter each row, column.

    Angles are float32 whatever the network computes in: bfloat16 rounds 257 to 256.

    Args:
        position: (order, row, column) of each slot.
        head_width: width of one head, a multiple of 8; it has `head_width / 2` angles.
    """
    quarter = head_width // 8
    angles = [
        jnp.multiply.outer(position[..., axis].astype(jnp.float32), base ** -(jnp.arange(n) / n))
        for axis, base, n in (
            (0, ROPE_THETA_ORDER, 2 * quarter),
            (1, ROPE_THETA_GRID, quarter),
            (2, ROPE_THETA_GRID, quarter),
        )
    ]
    angle = jnp.concatenate(angles, axis=-1)[..., None, :]
    return jnp.cos(angle), jnp.sin(angle)


def apply_rope(
    x: Float[Array, "B L H A"], rope: tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]]
) -> Float[Array, "B L H A"]:
    """Rotary embedding: (x_i, x_{i + A/2}) turned by angle i, Su et al., RoFormer, eq. 34."""
    cos, sin = rope
    cos = jnp.concatenate([cos, cos], axis=-1)
    sin = jnp.concatenate([-sin, sin], axis=-1)
    whole = x.astype(jnp.float32)
    # The whole of x times cos, its halves exchanged times sin: XLA's CPU backend takes 1.1 times
    # as long for a layer whose halves are turned apart and joined.
    other = jnp.roll(whole, x.shape[-1] // 2, axis=-1)
    return (whole * cos + other * sin).astype(x.dtype)
