"""Who sees whom, as a few numbers for each slot.

Every rule there is comes down to this: a slot sees those of its own document, up to a last one.
That is the document's last, itself, or the last of its own picture. So L x L masks need only exist
where attention is computed by one.
"""

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import AttentionPattern, Modality, NoisyCanvas
from oneflow_jax.shapes import Array, Bool, Int

INVISIBLE = -1
"""The segment of what no slot sees."""


@flax.struct.dataclass
class AttentionMask:
    """Slot i sees slot j if both are of one segment, and j is numbered `until_i` at most.

    Every slot sees one at least, if only itself: no row of a softmax is empty.

    Attributes:
        segment: of the L slots that look.
        until: number of the last slot that each of them sees.
        key_segment: of the S slots that are looked at.
        number: of each of these, in reading order.
        pattern: if those who look are those who are looked at, in order: by which rule.
    """

    segment: Int[Array, "B L"]
    until: Int[Array, "B L"]
    key_segment: Int[Array, "B S"]
    number: Int[Array, "B S"]
    pattern: AttentionPattern | None = flax.struct.field(pytree_node=False, default=None)

    def visible(self) -> Bool[Array, "B L S"]:
        """True where a slot may see a slot."""
        together = self.segment[:, :, None] == self.key_segment[:, None, :]
        return together & (self.number[:, None, :] <= self.until[:, :, None])

    def padded(self, slots: int) -> "AttentionMask":
        """The same among `slots` slots to look at, of which nobody sees those that are added."""
        beyond = ((0, 0), (0, slots - self.number.shape[1]))
        return self.replace(
            key_segment=jnp.pad(self.key_segment, beyond, constant_values=INVISIBLE),
            number=jnp.pad(self.number, beyond),
            pattern=None,
        )


def from_canvas(view: NoisyCanvas, pattern: AttentionPattern) -> AttentionMask:
    """Who sees whom in a view; never one of another document.

    What comes before lies before: rows of paradigms that look back are in reading order, and the
    slots of a picture side by side. PAD slots, of segment 0, see one another.
    """
    segment, last = view.segment, view.segment.shape[1] - 1
    slots = jnp.broadcast_to(jnp.arange(last + 1), segment.shape)
    if pattern is AttentionPattern.BIDIRECTIONAL:
        until = jnp.full_like(slots, last)
    elif pattern is AttentionPattern.CAUSAL:
        until = slots
    else:
        # All slots of a picture bear one order; a word's own number is below zero.
        picture = jnp.where(view.kind == Modality.IMAGE, view.position[..., 0], -1 - slots)
        ends = (picture != jnp.roll(picture, -1, axis=1)) | (segment != jnp.roll(segment, -1, 1))
        ends |= slots == last
        until = jax.lax.cummin(jnp.where(ends, slots, last), axis=1, reverse=True)
    return AttentionMask(segment, until, segment, slots, pattern)


def for_decode(view: NoisyCanvas, length: Int[Array, "B"], num_keys: int) -> AttentionMask:
    """Who sees which slots of a cache, among c slots that come after the `length` valid ones.

    A word sees what is before it and itself; a picture's slots, of which all come at once, see one
    another too.
    """
    rows, count = view.kind.shape
    own = jnp.where(view.kind == Modality.IMAGE, count - 1, jnp.arange(count)[None])
    one = jnp.zeros((rows, num_keys), jnp.int32)
    number = jnp.broadcast_to(jnp.arange(num_keys), one.shape)
    return AttentionMask(jnp.zeros_like(own), length[:, None] + own, one, number)
