"""Attention: the one function that attends, who sees whom, and the module around them."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.canvas import Attend, Kind, View
from oneflow_jax.nn import layers
from oneflow_jax.shapes import Array, Bool, Float, Int

Rotation = tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]]
"""Cosine and sine of the slots' positions: `layers.rotations`."""

Asked = tuple[Float[Array, "B L H A"], Float[Array, "B L K A"], Float[Array, "B L K A"]]
"""Queries, keys and values."""


@flax.struct.dataclass
class Cache:
    """Keys and values of the slots that came before, by layer; `length` of them are valid.

    Beyond `length` there may be anything: it is never seen, and overwritten by what comes.
    """

    key: Float[Array, "N B S K A"]
    value: Float[Array, "N B S K A"]
    length: Int[Array, "B"]

    def advanced(self, by: Int[Array, "B"]) -> "Cache":
        """The cache with the next `by` slots of each row counted as valid."""
        return self.replace(length=self.length + by)

    def above(self, other: "Cache") -> "Cache":
        """The rows of both, these first; they have room for equally many slots."""
        return Cache(
            jnp.concatenate([self.key, other.key], axis=1),
            jnp.concatenate([self.value, other.value], axis=1),
            jnp.concatenate([self.length, other.length]),
        )

    def top(self, rows: int) -> "Cache":
        """The first so many rows."""
        return Cache(self.key[:, :rows], self.value[:, :rows], self.length[:rows])


def visible(view: View, attend: Attend) -> Bool[Array, "B L L"]:
    """True where slot i may see slot j; never one of another document.

    What comes before lies before: rows of paradigms that look back are in reading order. PAD slots
    (segment 0) see one another, so that no row of the softmax is empty.
    """
    together = view.segment[:, :, None] == view.segment[:, None, :]
    if attend is Attend.BIDIRECTIONAL:
        return together
    slots = jnp.arange(view.segment.shape[1])
    back = together & (slots[None, None, :] <= slots[None, :, None])
    if attend is Attend.CAUSAL:
        return back
    # All slots of a picture bear one order; a word's own number is below zero.
    picture = jnp.where(view.kind == Kind.IMAGE, view.position[..., 0], -1 - slots[None])
    return back | (together & (picture[:, :, None] == picture[:, None, :]))


def visible_from(view: View, length: Int[Array, "B"], slots: int) -> Bool[Array, "B c S"]:
    """Who sees which slots of a cache, for c slots that come after the `length` valid ones.

    A word sees what is before it and itself; a picture's slots, of which all come at once, see one
    another too.
    """
    count = view.kind.shape[1]
    last = jnp.where(view.kind == Kind.IMAGE, count - 1, jnp.arange(count)[None])
    upto = length[:, None] + last
    return jnp.arange(slots)[None, None, :] <= upto[:, :, None]


def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B S K A"],
    value: Float[Array, "B S K A"],
    visible: Bool[Array, "B L S"],
) -> Float[Array, "B L H A"]:
    """softmax(query . key / sqrt(A)) value over visible slots; K divides H."""
    return jax.nn.dot_product_attention(query, key, value, mask=visible[:, None])


class Attention(nn.Module):
    """Multi-head attention with normalized queries and keys, and rotary positions.

    In two halves, of what each slot does by itself; between them `gathered` brings slots together.
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

    def asks(self, x: Float[Array, "B L D"], rotation: Rotation) -> Asked:
        """Queries, keys and values of the slots."""
        query, key = self.query_norm(self.query(x)), self.key_norm(self.key(x))
        return layers.rotate(query, rotation), layers.rotate(key, rotation), self.value(x)

    def tells(self, gathered: Float[Array, "B L H A"]) -> Float[Array, "B L D"]:
        """What becomes of what each slot has gathered."""
        return self.out(gathered)


def gathered(
    asked: Asked, visible: Bool[Array, "B L S"], before: Cache | None
) -> tuple[Float[Array, "B L H A"], Cache | None]:
    """What each slot gathers from the slots it may see, and the cache with these slots in it.

    Args:
        asked: queries, keys and values.
        visible: who sees whom; with a cache, all of its slots.
        before: one layer's cache, without its first axis.
    """
    query, key, value = asked
    if before is not None:
        before = _written(before, key, value)
        key, value = before.key, before.value
    found = attend(query, key, value, visible)
    axes = ("rows", "slots", "act_heads", "head_width")
    return nn.with_logical_constraint(found, axes), before


def _written(cache: Cache, key: Float[Array, "B c K A"], value: Float[Array, "B c K A"]) -> Cache:
    """The cache of one layer with new keys and values right after the valid ones."""

    @jax.vmap
    def put(old: Array, new: Array, start: Array) -> Array:
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), (start, 0, 0))

    return cache.replace(
        key=put(cache.key, key, cache.length), value=put(cache.value, value, cache.length)
    )
