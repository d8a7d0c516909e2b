"""Attention: the one function that attends, and the module around it."""

import flax.linen as nn
import jax
from jax.typing import DTypeLike

from oneflow_jax.nn import layers
from oneflow_jax.shapes import Array, Bool, Float, Int


def same_document(segment: Int[Array, "B L"]) -> Bool[Array, "B L L"]:
    """True where slot i may see slot j: both belong to one document, in both directions.

    PAD slots (segment 0) see one another, so that no row of the softmax is empty.
    """
    return segment[:, :, None] == segment[:, None, :]


def attend(
    query: Float[Array, "B L H A"],
    key: Float[Array, "B L K A"],
    value: Float[Array, "B L K A"],
    visible: Bool[Array, "B L L"],
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
        visible: Bool[Array, "B L L"],
        rotation: tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]],
    ) -> Float[Array, "B L D"]:
        """What each slot gathers from the slots it may see."""
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
        gathered = attend(query, key, value, visible)
        gathered = nn.with_logical_constraint(
            gathered, ("rows", "slots", "act_heads", "head_width")
        )
        axes = ("heads", "head_width", "width")
        return layers.Linear((width,), axes, self.dtype, inputs=2, name="out")(gathered)
