"""The transformer: a stack of equal blocks, scanned over and recomputed as told."""

import dataclasses

import flax.linen as nn
import jax
from jax.typing import DTypeLike

from oneflow_jax.nn import attention, layers
from oneflow_jax.shapes import Array, Bool, Float, Int, PyTree

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What the backward pass finds saved: all, results of weight matrices, or only block inputs."""


@dataclasses.dataclass(frozen=True)
class Size:
    """Shape of the transformer.

    Attributes:
        layers, width, heads, kv_heads, head_width, hidden: N, D, H, K, A, F of `shapes`;
            K divides H, A is a multiple of 8.
        remat: one of `REMAT`.
        unroll: how many layers each round of the scan runs; all of them makes straight-line code,
            which compiles longer and runs faster on CPUs.
        dtype: what matrices are multiplied in; parameters are always float32.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    remat: str
    unroll: int
    dtype: DTypeLike


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    size: Size

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        visible: Bool[Array, "B L S"],
        rotation: tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]],
        length: Int[Array, "B"] | None,
        before: tuple[Float[Array, "B S K A"], Float[Array, "B S K A"]] | None,
    ) -> tuple[Float[Array, "B L D"], PyTree]:
        """The next layer's input and this one's cache, in the form that `nn.scan` wants."""
        size = self.size
        attend = attention.Attention(
            size.heads, size.kv_heads, size.head_width, size.dtype, name="attention"
        )
        mlp = layers.SwiGLU(size.hidden, size.dtype, name="mlp")
        normed = layers.rms_norm(size.dtype, name="attention_norm")(x)
        cache = None if before is None else attention.Cache(*before, length)
        gathered, cache = attend(normed, visible, rotation, cache)
        x = x + gathered
        x = x + mlp(layers.rms_norm(size.dtype, name="mlp_norm")(x))
        after = None if cache is None else (cache.key, cache.value)
        return nn.with_logical_constraint(x, ("rows", "slots", "act_width")), after


class Backbone(nn.Module):
    """`size.layers` blocks; parameters of all layers are stacked along a first axis."""

    size: Size

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        visible: Bool[Array, "B L S"],
        position: Int[Array, "B L 3"],
        cache: attention.Cache | None = None,
    ) -> tuple[Float[Array, "B L D"], attention.Cache | None]:
        """Every slot after having seen what it may, normalized; and the cache with the slots."""
        size = self.size
        block = Block
        if REMAT[size.remat] is not None:
            # The scan already keeps XLA from merging the recomputation away.
            block = nn.remat(Block, prevent_cse=False, policy=REMAT[size.remat])
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast, 0),
            length=size.layers,
            unroll=size.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(size, name="blocks")
        rotation = layers.rotations(position, size.head_width)
        if cache is None:
            x, _ = stack(x, visible, rotation, None, None)
        else:
            x, (key, value) = stack(x, visible, rotation, cache.length, (cache.key, cache.value))
            cache = cache.replace(key=key, value=value)
        return layers.rms_norm(size.dtype, name="norm")(x), cache
