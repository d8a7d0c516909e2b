"""The attention module: the KV cache, and the projections before and after attention."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.nn import attention_ops, layers, partitioning, rope
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Float, Int

RopeAngles = tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]]
"""Cosine and sine of the rotary angles, as `rope.Rope.angles` returns them."""

QKV = tuple[Float[Array, "B L H A"], Float[Array, "B L K A"], Float[Array, "B L K A"]]
"""Queries, keys and values."""


PerLayer = Float[Array, "N B S K A"] | tuple[Float[Array, "B S K A"], ...]
"""Keys or values of all layers: one stacked array, or one array per layer (`nn.unstack`)."""


@flax.struct.dataclass
class KVCache:
    """Keys and values of earlier slots in every layer.

    The first `length` slots of each row are valid. Slots from `length` on may hold anything: no
    query attends to them, and the next slots of the document overwrite them.
    """

    key: PerLayer
    value: PerLayer
    length: Int[Array, "B"]

    @property
    def num_slots(self) -> int:
        """Number of slots S that each row has room for."""
        return jax.tree.leaves(self.key)[0].shape[-3]

    def advance(self, num_slots: Int[Array, "B"]) -> "KVCache":
        """Return a cache in which the next `num_slots` slots of each row are valid too."""
        return self.replace(length=self.length + num_slots)

    def concat_rows(self, other: "KVCache") -> "KVCache":
        """Concatenate the rows of two caches; both must have room for the same number of slots."""

        def concat(x: Array, y: Array) -> Array:
            return jnp.concatenate([x, y], axis=-4)

        return KVCache(
            jax.tree.map(concat, self.key, other.key),
            jax.tree.map(concat, self.value, other.value),
            jnp.concatenate([self.length, other.length]),
        )

    def first_rows(self, batch_size: int) -> "KVCache":
        """Return the first `batch_size` rows."""

        def take(x: Array) -> Array:
            return x[..., :batch_size, :, :, :]

        return KVCache(
            jax.tree.map(take, self.key),
            jax.tree.map(take, self.value),
            self.length[:batch_size],
        )


class Attention(nn.Module):
    """Multi-head attention with rotary positions.

    The module holds only the projections and norms. A layer calls `qkv_proj`, then the function
    `attend_with_cache`, then `out_proj`.

    Attributes:
        heads, kv_heads, head_width, width: H, K, A, D of `shapes`.
        dtype: data type of matrix products.
        qk_norm: whether queries and keys are normalized.
        qkv_bias: whether the projections of queries, keys and values add a bias.
        norm_eps: number that is added to the mean square in norms.
    """

    heads: int
    kv_heads: int
    head_width: int
    width: int
    dtype: DTypeLike
    qk_norm: bool = True
    qkv_bias: bool = False
    norm_eps: float = layers.NORM_EPS

    def setup(self) -> None:
        """Create the four projections, and the norms of queries and keys, if they have norms."""

        def heads_of(count: int, axis: str) -> layers.Linear:
            axes = ("width", axis, "head_width")
            features = (count, self.head_width)
            return layers.Linear(features, axes, self.dtype, use_bias=self.qkv_bias)

        self.query = heads_of(self.heads, "heads")
        self.key = heads_of(self.kv_heads, "kv_heads")
        self.value = heads_of(self.kv_heads, "kv_heads")
        # Without normalized queries and keys, mixed-modal models diverge (Chameleon, section 2.2).
        # Language models without them start from weights that were trained without them.
        if self.qk_norm:
            self.query_norm = layers.rms_norm(self.dtype, "head_width", eps=self.norm_eps)
            self.key_norm = layers.rms_norm(self.dtype, "head_width", eps=self.norm_eps)
        axes = ("heads", "head_width", "width")
        self.out = layers.Linear((self.width,), axes, self.dtype, num_input_axes=2)

    def qkv_proj(self, x: Float[Array, "B L D"], angles: RopeAngles) -> QKV:
        """Compute queries, keys and values of the slots."""
        query, key = self.query(x), self.key(x)
        if self.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        return rope.apply(query, angles), rope.apply(key, angles), self.value(x)

    def out_proj(self, attn_output: Float[Array, "B L H A"]) -> Float[Array, "B L D"]:
        """Apply the output projection."""
        return self.out(attn_output)


def attend_with_cache(
    qkv: QKV,
    mask: AttentionMask,
    cache: KVCache | None,
    implementation: str,
    score_cap: float,
) -> tuple[Float[Array, "B L H A"], KVCache | None]:
    """Compute attention; with a KV cache, first write the new keys and values to it.

    Args:
        qkv: queries, keys and values.
        mask: the attention mask; with a KV cache, its keys are all slots of the cache.
        cache: one layer of the KV cache, without the layer axis; None if keys are not cached.
        implementation: one of `attention_ops.IMPLEMENTATIONS`.
        score_cap: limit of the soft cap of scores; 0 without one.
    """
    query, key, value = qkv
    if cache is not None:
        cache = _append(cache, key, value)
        key, value = cache.key, cache.value
    attn_output = attention_ops.dot_product_attention(
        query, key, value, mask, implementation, score_cap
    )
    return partitioning.with_logical_constraint(attn_output, attention_ops.QUERY_AXES), cache


def _append(
    cache: KVCache, key: Float[Array, "B c K A"], value: Float[Array, "B c K A"]
) -> KVCache:
    """Write new keys and values of one layer to the cache, right after the valid slots."""

    @jax.vmap
    def put(old: Array, new: Array, start: Array) -> Array:
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), (start, 0, 0))

    return cache.replace(
        key=put(cache.key, key, cache.length), value=put(cache.value, value, cache.length)
    )
