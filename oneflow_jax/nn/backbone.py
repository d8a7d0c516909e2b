"""The transformer: a stack of equal blocks, scanned over and recomputed as told."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
from jax.typing import DTypeLike

from oneflow_jax.nn import attention, layers, partitioning
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Bool, Float, Int

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What the backward pass finds saved: all, results of weight matrices, or only block inputs."""


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Shape of the transformer.

    Attributes:
        layers, width, heads, kv_heads, head_width, hidden: N, D, H, K, A, F of `shapes`;
            K divides H, A is a multiple of 8.
        remat: one of `REMAT`.
        unroll: how many layers each round of the scan runs; all of them makes straight-line code,
            which compiles longer and runs faster on CPUs.
        dtype: what matrices are multiplied in; parameters are always float32.
        attention: one of `attention_ops.IMPLEMENTATIONS`.
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
    attention: str = "dense"


@flax.struct.dataclass
class LayerInputs:
    """What is the same for all layers.

    Attributes:
        sight: who sees whom; with a cache, all of its slots.
        rotation: of the slots' positions.
        pictured: True for slots of pictures.
        length: with a cache, how many of its slots are valid.
    """

    sight: AttentionMask
    rotation: attention.RopeAngles
    pictured: Bool[Array, "B L"]
    length: Int[Array, "B"] | None = None


LayerKV = tuple[Float[Array, "B S K A"], Float[Array, "B S K A"]] | None
"""Keys and values of one layer's cache, if there is one."""


class TransformerLayer(nn.Module):
    """Slots by themselves, together, and by themselves again; subclasses say what they do alone."""

    size: TransformerConfig

    def __call__(
        self, x: Float[Array, "B L D"], around: LayerInputs, kept: LayerKV
    ) -> tuple[Float[Array, "B L D"], LayerKV]:
        """The next layer's input and this one's cache, in the form that `nn.scan` wants."""
        cache = None if kept is None else attention.KVCache(*kept, around.length)
        asked, way = self.asks(x, around), self.size.attention
        gathered, cache = attention.attend_with_cache(asked, around.sight, cache, way)
        x = self.tells(x, around, gathered)
        kept = None if cache is None else (cache.key, cache.value)
        return partitioning.with_logical_constraint(x, ("rows", "slots", "act_width")), kept

    def asks(self, x: Float[Array, "B L D"], around: LayerInputs) -> attention.QKV:
        """Queries, keys and values."""
        raise NotImplementedError

    def tells(
        self, x: Float[Array, "B L D"], around: LayerInputs, gathered: Float[Array, "B L H A"]
    ) -> Float[Array, "B L D"]:
        """The slots after having gathered."""
        raise NotImplementedError


class Block(TransformerLayer):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def setup(self) -> None:
        """Attention, the MLP, and a norm before each."""
        size = self.size
        self.attention_norm = layers.rms_norm(size.dtype)
        self.attention = attention.Attention(
            size.heads, size.kv_heads, size.head_width, size.width, size.dtype
        )
        self.mlp_norm = layers.rms_norm(size.dtype)
        self.mlp = layers.SwiGLU(size.hidden, size.dtype)

    def asks(self, x: Float[Array, "B L D"], around: LayerInputs) -> attention.QKV:
        """Queries, keys and values."""
        return self.attention.asks(self.attention_norm(x), around.rotation)

    def tells(
        self, x: Float[Array, "B L D"], around: LayerInputs, gathered: Float[Array, "B L H A"]
    ) -> Float[Array, "B L D"]:
        """The slots after having gathered."""
        del around
        x = x + self.attention.tells(gathered)
        return x + self.mlp(self.mlp_norm(x))


class Backbone(nn.Module):
    """`size.layers` layers; parameters of all of them are stacked along a first axis."""

    size: TransformerConfig
    layer: type[TransformerLayer] = Block

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        around: LayerInputs,
        cache: attention.KVCache | None = None,
    ) -> tuple[Float[Array, "B L D"], attention.KVCache | None]:
        """Every slot after having seen what it may, normalized; and the cache with the slots."""
        size, layer = self.size, self.layer
        if REMAT[size.remat] is not None:
            # The scan already keeps XLA from merging the recomputation away.
            layer = nn.remat(layer, prevent_cse=False, policy=REMAT[size.remat])
        stack = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, 0),
            length=size.layers,
            unroll=size.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(size, name="blocks")
        if cache is None:
            x, _ = stack(x, around, None)
        else:
            x, (key, value) = stack(
                x, around.replace(length=cache.length), (cache.key, cache.value)
            )
            cache = cache.replace(key=key, value=value)
        return layers.rms_norm(size.dtype, name="norm")(x), cache
