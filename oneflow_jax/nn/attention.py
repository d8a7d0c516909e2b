"""Attention: the one function that attends, who sees whom, and the module around them."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.canvas import Attend, Kind, View
from oneflow_jax.nn import layers
from oneflow_jax.shapes import Array, Bool, Float, Int


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
    """Multi-head attention with normalized queries and keys, and rotary positions."""

    heads: int
    kv_heads: int
    head_width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        visible: Bool[Array, "B L S"],
        rotation: tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]],
        before: Cache | None = None,
    ) -> tuple[Float[Array, "B L D"], Cache | None]:
        """What each slot gathers from the slots it may see, and the cache with x written to it.

        Args:
            x: the slots.
            visible: who sees whom; with a cache, all of its slots.
            rotation: of the slots' positions.
            before: one layer's cache, without its first axis.
        """
        width = x.shape[-1]

        def project(heads: int, axis: str, name: str) -> Float[Array, "B L H A"]:
            axes = ("width", axis, "head_width")
            return layers.Linear((heads, self.head_width), axes, self.dtype, name=name)(x)

        query = project(self.heads, "heads", "query")
        key = project(self.kv_heads, "kv_heads", "key")
        value = project(self.kv_heads, "kv_heads", "value")
        # Without normalized queries and keys mixed-modal models diverge: Chameleon, section 2.2.
        query = layers.rms_norm(self.dtype, "head_width", "query_norm")(query)
        key = layers.rms_norm(self.dtype, "head_width", "key_norm")(key)
        query, key = layers.rotate(query, rotation), layers.rotate(key, rotation)
        if before is not None:
            before = _written(before, key, value)
            key, value = before.key, before.value
        gathered = attend(query, key, value, visible)
        gathered = nn.with_logical_constraint(
            gathered, ("rows", "slots", "act_heads", "head_width")
        )
        axes = ("heads", "head_width", "width")
        out = layers.Linear((width,), axes, self.dtype, inputs=2, name="out")
        return out(gathered), before


def _written(cache: Cache, key: Float[Array, "B c K A"], value: Float[Array, "B c K A"]) -> Cache:
    """The cache of one layer with new keys and values right after the valid ones."""

    @jax.vmap
    def put(old: Array, new: Array, start: Array) -> Array:
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), (start, 0, 0))

    return cache.replace(
        key=put(cache.key, key, cache.length), value=put(cache.value, value, cache.length)
    )
