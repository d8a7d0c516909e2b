"""The module around attention: what slots ask and tell, and the cache of what they told."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.nn import attention_ops, layers, partitioning
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Float, Int

RopeAngles = tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]]
"""Cosine and sine of the slots' positions: `layers.rotations`."""

QKV = tuple[Float[Array, "B L H A"], Float[Array, "B L K A"], Float[Array, "B L K A"]]
"""Queries, keys and values."""


@flax.struct.dataclass
class KVCache:
    """Keys and values of the slots that came before, by layer; `length` of them are valid.

    Beyond `length` there may be anything: it is never seen, and overwritten by what comes.
    """

    key: Float[Array, "N B S K A"]
    value: Float[Array, "N B S K A"]
    length: Int[Array, "B"]

    def advanced(self, by: Int[Array, "B"]) -> "KVCache":
        """The cache with the next `by` slots of each row counted as valid."""
        return self.replace(length=self.length + by)

    def above(self, other: "KVCache") -> "KVCache":
        """The rows of both, these first; they have room for equally many slots."""
        return KVCache(
            jnp.concatenate([self.key, other.key], axis=1),
            jnp.concatenate([self.value, other.value], axis=1),
            jnp.concatenate([self.length, other.length]),
        )

    def top(self, rows: int) -> "KVCache":
        """The first so many rows."""
        return KVCache(self.key[:, :rows], self.value[:, :rows], self.length[:rows])


class Attention(nn.Module):
    """Multi-head attention with normalized queries and keys, and rotary positions.

    In two halves, of what each slot does by itself; between them `attend_with_cache` brings slots
    together.
    """

    heads: int
    kv_heads: int
    head_width: int
    width: int
    dtype: DTypeLike

    def setup(self) -> None:
        """The four maps, and the norms of queries and keys."""

        def heads_of(count: int, axis: str) -> layers.Linear:
            axes = ("width", axis, "head_width")
            return layers.Linear((count, self.head_width), axes, self.dtype)

        self.query = heads_of(self.heads, "heads")
        self.key = heads_of(self.kv_heads, "kv_heads")
        self.value = heads_of(self.kv_heads, "kv_heads")
        # Without normalized queries and keys mixed-modal models diverge: Chameleon, section 2.2.
        self.query_norm = layers.rms_norm(self.dtype, "head_width")
        self.key_norm = layers.rms_norm(self.dtype, "head_width")
        axes = ("heads", "head_width", "width")
        self.out = layers.Linear((self.width,), axes, self.dtype, inputs=2)

    def asks(self, x: Float[Array, "B L D"], rotation: RopeAngles) -> QKV:
        """Queries, keys and values of the slots."""
        query, key = self.query_norm(self.query(x)), self.key_norm(self.key(x))
        return layers.apply_rope(query, rotation), layers.apply_rope(key, rotation), self.value(x)

    def tells(self, gathered: Float[Array, "B L H A"]) -> Float[Array, "B L D"]:
        """What becomes of what each slot has gathered."""
        return self.out(gathered)


def attend_with_cache(
    qkv: QKV, mask: AttentionMask, cache: KVCache | None, implementation: str
) -> tuple[Float[Array, "B L H A"], KVCache | None]:
    """What each slot gathers from the slots it may see, and the cache with these slots in it.

    Args:
        qkv: queries, keys and values.
        mask: who sees whom; with a cache, all of its slots.
        cache: one layer's cache, without its first axis.
        implementation: one of `attention_ops.IMPLEMENTATIONS`.
    """
    query, key, value = qkv
    if cache is not None:
        cache = _append(cache, key, value)
        key, value = cache.key, cache.value
    found = attention_ops.dot_product_attention(query, key, value, mask, implementation)
    return partitioning.with_logical_constraint(found, attention_ops.QUERY_AXES), cache


def _append(
    cache: KVCache, key: Float[Array, "B c K A"], value: Float[Array, "B c K A"]
) -> KVCache:
    """The cache of one layer with new keys and values right after the valid ones."""

    @jax.vmap
    def put(old: Array, new: Array, start: Array) -> Array:
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), (start, 0, 0))

    return cache.replace(
        key=put(cache.key, key, cache.length), value=put(cache.value, value, cache.length)
    )
