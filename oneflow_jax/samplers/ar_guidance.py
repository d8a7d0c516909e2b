"""Pictures alone: what classifier-free guidance holds a picture against, from left to right.

In some documents of the task `text_to_image` the network is shown each picture by itself, after
<image> and nothing else. In sampling it is asked twice then, for the picture after all that comes
before it, and alone, in one batch of twice the rows, each with a cache of its own; what it says is
mixed as u + scale (c - u), as Transfusion does it with patches (section 4) and others with codes.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, EmbeddingTable, Modality, NoisyCanvas
from oneflow_jax.shapes import Array, Bool, Float, Outputs, PyTree


class CachedModel(Protocol):
    """The network with a cache, which is opaque here but for `advanced`, `above` and `top`."""

    def cache(self, rows: int, slots: int) -> PyTree:
        """An empty cache."""

    def prefill(self, view: NoisyCanvas, cache: PyTree) -> tuple[Outputs, PyTree]:
        """What it says of a beginning, and the cache with it."""

    def after(self, view: NoisyCanvas, cache: PyTree) -> tuple[Outputs, PyTree]:
        """What it says of slots that come next, and the cache with them."""


def image_only_view(
    view: NoisyCanvas, canvas: Canvas, dropped: Bool[Array, "L"], image_token_id: int
) -> tuple[NoisyCanvas, Bool[Array, "L"]]:
    """The view with the pictures of some documents alone, and which slots tell nothing of words.

    Args:
        view: of one row.
        canvas: the row.
        dropped: True for the words that are to go; of a document all or none.
        image_token_id: what stands before each picture, and stays.
    """
    together = canvas.segment[:, None] == canvas.segment[None, :]
    bereft = jnp.any(together & dropped[None, :], axis=1)
    # Numbers of pictures, above those of documents.
    number = canvas.ids.shape[0] + canvas.span
    opens = canvas.is_text & (canvas.ids == image_token_id)
    alone = jnp.where(canvas.is_image, number, jnp.where(opens, jnp.roll(number, -1), 0))
    segment = jnp.where(bereft, alone, view.segment)
    kind = jnp.where(segment > 0, view.kind, int(Modality.PAD))
    return view.replace(segment=segment, kind=kind), bereft


@dataclasses.dataclass(frozen=True)
class ARGuidance:
    """Of pictures by what comes before them.

    Attributes:
        scale: 1 is none, and costs nothing.
        image_token: what stands before each picture.
    """

    scale: float
    image_token: int

    @property
    def copies(self) -> int:
        """How many rows the network is shown for each row."""
        return 1 if self.scale == 1 else 2

    def passes(self, count: int) -> int:
        """NFE of a picture that takes so many without guidance; one more shows <image> alone."""
        return count if self.copies == 1 else 2 * count + 1

    def init_unconditional(
        self,
        network: CachedModel,
        table: EmbeddingTable,
        view: NoisyCanvas,
        cache: PyTree,
        logits: Float[Array, "B V"],
    ) -> tuple[PyTree, Float[Array, "b V"]]:
        """Cache and logits before a picture: below those of all rows, those of <image> alone.

        Args:
            network: with a cache.
            table: the vocabulary as vectors.
            view: of the picture's slots.
            cache: of all that comes before.
            logits: of what comes next.
        """
        if self.copies == 1:
            return cache, logits
        first = jax.tree.map(lambda x: x[:, :1], view)
        opening = first.replace(
            kind=jnp.full_like(first.kind, int(Modality.TEXT)),
            embeds=jnp.broadcast_to(table.rows[self.image_token], first.embeds.shape),
            position=first.position - jnp.array([[[1, 0, 0]]]),
            clock=jnp.ones_like(first.clock),
        )
        rows = view.kind.shape[0]
        empty = jax.tree.map(jnp.zeros_like, cache)
        outputs, alone = network.after(opening, empty)
        alone = alone.advanced(jnp.ones(rows, jnp.int32))
        return cache.above(alone), jnp.concatenate([logits, outputs["token_logits"][:, 0]])

    def repeat(self, view: NoisyCanvas) -> NoisyCanvas:
        """The view of each row, as often as the network is to be shown it."""
        return jax.tree.map(lambda x: jnp.concatenate([x] * self.copies), view)

    def combine(self, told: Float[Array, "b *e"]) -> Float[Array, "B *e"]:
        """What is said of each row: u + scale (c - u), c after all that comes before, u alone."""
        if self.copies == 1:
            return told
        conditional, alone = jnp.split(told, 2)
        return alone + self.scale * (conditional - alone)
