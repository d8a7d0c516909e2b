"""Attention masks, stored as two or three integers per slot.

Every attention pattern here has one form: a slot attends to the slots of its own segment, up to a
last visible slot. The last visible slot is the last slot of the row (bidirectional), the slot
itself (causal), or the last slot of its own image (mixed; for text, the slot itself). A
sliding window adds a first visible slot. Only implementations of attention that need an L x L mask
materialize it.
"""

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import AttentionPattern, Modality, NoisyCanvas
from oneflow_jax.shapes import Array, Bool, Int

INVISIBLE = -1
"""Segment number of padding keys: no query has this segment, so none attends to them."""


@flax.struct.dataclass
class AttentionMask:
    """Mask: query i attends to key j of the same segment if key_index[j] <= last_visible[i].

    Every query attends at least to its own key, so no row of the softmax is empty.

    Attributes:
        segment: segment of each of the L queries.
        last_visible: index of the last key that each query attends to.
        key_segment: segment of each of the S keys.
        key_index: index of each key, in reading order.
        pattern: the attention pattern, if queries and keys are the same slots in the same order;
            None otherwise.
        first_visible: index of the first key that each query attends to; None without a sliding
            window.
    """

    segment: Int[Array, "B L"]
    last_visible: Int[Array, "B L"]
    key_segment: Int[Array, "B S"]
    key_index: Int[Array, "B S"]
    pattern: AttentionPattern | None = flax.struct.field(pytree_node=False, default=None)
    first_visible: Int[Array, "B L"] | None = None

    def materialize(self) -> Bool[Array, "B L S"]:
        """Return the boolean mask: True where a query attends to a key."""
        together = self.segment[:, :, None] == self.key_segment[:, None, :]
        seen = together & (self.key_index[:, None, :] <= self.last_visible[:, :, None])
        if self.first_visible is None:
            return seen
        return seen & (self.key_index[:, None, :] >= self.first_visible[:, :, None])

    @property
    def num_keys(self) -> int:
        """Number of keys S of a row."""
        return self.key_index.shape[1]

    def limit(self, window: Int[Array, ""]) -> "AttentionMask":
        """Limit each query to the last `window` of the keys that it attends to.

        All slots of an image end at the same key, so they also begin at the same one.
        """
        return self.replace(first_visible=self.last_visible - window + 1)

    def pad_keys(self, num_keys: int) -> "AttentionMask":
        """Pad the mask to `num_keys` keys; no query attends to the padding."""
        beyond = ((0, 0), (0, num_keys - self.num_keys))
        return self.replace(
            key_segment=jnp.pad(self.key_segment, beyond, constant_values=INVISIBLE),
            key_index=jnp.pad(self.key_index, beyond),
            pattern=None,
        )


def from_canvas(view: NoisyCanvas, pattern: AttentionPattern) -> AttentionMask:
    """Build the attention mask of a canvas; no slot attends to another document.

    Causal and mixed patterns need rows in reading order, with the slots of each image side by side.
    PAD slots have segment 0 and attend to one another.
    """
    segment, last = view.segment, view.segment.shape[1] - 1
    slots = jnp.broadcast_to(jnp.arange(last + 1), segment.shape)
    if pattern is AttentionPattern.BIDIRECTIONAL:
        until = jnp.full_like(slots, last)
    elif pattern is AttentionPattern.CAUSAL:
        until = slots
    else:
        # Number images by their order, and each text slot by a different negative number: then runs
        # of equal numbers are whole images or single text slots.
        image = jnp.where(view.modality == Modality.IMAGE, view.position[..., 0], -1 - slots)
        ends = (image != jnp.roll(image, -1, axis=1)) | (segment != jnp.roll(segment, -1, 1))
        ends |= slots == last
        until = jax.lax.cummin(jnp.where(ends, slots, last), axis=1, reverse=True)
    return AttentionMask(segment, until, segment, slots, pattern)


def for_decode(view: NoisyCanvas, length: Int[Array, "B"], num_keys: int) -> AttentionMask:
    """Build the mask of c new slots over a KV cache whose first `length` slots are valid.

    A text slot attends to the slots before it and to itself. The c new slots are either text or
    one whole image; the slots of an image also attend to one another.
    """
    rows, count = view.modality.shape
    own = jnp.where(view.modality == Modality.IMAGE, count - 1, jnp.arange(count)[None])
    one = jnp.zeros((rows, num_keys), jnp.int32)
    number = jnp.broadcast_to(jnp.arange(num_keys), one.shape)
    return AttentionMask(jnp.zeros_like(own), length[:, None] + own, one, number)
