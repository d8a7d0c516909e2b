"""Classifier-free guidance of images in autoregressive samplers.

Conditioning dropout trains the unconditional prediction: in a fraction of the `text_to_image`
documents, each image attends only to itself and to the `<image>` token before it. With guidance,
sampling runs two branches for each image. The conditional branch attends to everything before the
image, and the unconditional branch only to `<image>`. The two branches are one batch with twice the
rows, and each row has its own KV cache. Their outputs c and u are combined as u + scale (c - u).
Transfusion (section 4) does this for patches, other models for image tokens.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, EmbeddingTable, Modality, NoisyCanvas
from oneflow_jax.samplers import guidance, plan_values
from oneflow_jax.shapes import Array, Bool, Float, Outputs, PyTree


class CachedModel(Protocol):
    """A network with a KV cache.

    Samplers use only the methods `advance`, `concat_rows` and `first_rows` of the cache.
    """

    def init_cache(self, batch_size: int, num_slots: int) -> PyTree:
        """Return an empty cache."""

    def prefill(self, view: NoisyCanvas, cache: PyTree) -> tuple[Outputs, PyTree]:
        """Process the first slots of each row; the caller must advance the returned cache."""

    def decode(self, view: NoisyCanvas, cache: PyTree) -> tuple[Outputs, PyTree]:
        """Process the next slots of each row; the caller must advance the returned cache."""


def image_only_view(
    view: NoisyCanvas, canvas: Canvas, dropped: Bool[Array, "L"], image_token_id: int
) -> tuple[NoisyCanvas, Bool[Array, "L"]]:
    """Hide all text except `<image>` in documents with conditioning dropout.

    Each image and the `<image>` token before it become a segment of their own, so the image attends
    only to them.

    Args:
        view: network input of one row.
        canvas: clean row.
        dropped: True for the text to hide: in each document all text, or none.
        image_token_id: id of `<image>`, the token before each image; it stays visible.

    Returns:
        The changed view, and a mask that is True for all slots of the documents with dropout.
    """
    together = canvas.segment[:, None] == canvas.segment[None, :]
    in_dropout = jnp.any(together & dropped[None, :], axis=1)
    # Segment numbers of images; they are above the segment numbers of documents.
    number = canvas.ids.shape[0] + canvas.span
    opens = canvas.is_text & (canvas.ids == image_token_id)
    alone = jnp.where(canvas.is_image, number, jnp.where(opens, jnp.roll(number, -1), 0))
    segment = jnp.where(in_dropout, alone, view.segment)
    kind = jnp.where(segment > 0, view.modality, int(Modality.PAD))
    return view.replace(segment=segment, modality=kind), in_dropout


@dataclasses.dataclass(frozen=True)
class ARGuidance:
    """Classifier-free guidance of images, conditioned on everything before the image.

    Attributes:
        scale: guidance scale; 1 disables guidance and adds no forward passes.
        image_token_id: id of `<image>`, the token before each image.
    """

    scale: plan_values.Number
    image_token_id: int

    @property
    def num_branches(self) -> int:
        """Number of rows that the network processes per document: 1, or 2 with guidance."""
        return guidance.nfe_factor(self.scale)

    def nfe(self, unguided_nfe: int) -> int:
        """Return the NFE of an image whose NFE without guidance is `unguided_nfe`.

        Guidance doubles the NFE, and adds one forward pass for `<image>` in the unconditional
        branch.
        """
        return unguided_nfe if self.num_branches == 1 else 2 * unguided_nfe + 1

    def init_unconditional(
        self,
        network: CachedModel,
        table: EmbeddingTable,
        view: NoisyCanvas,
        cache: PyTree,
        logits: Float[Array, "B V"],
    ) -> tuple[PyTree, Float[Array, "b V"]]:
        """Append the rows of the unconditional branch to the cache and logits before an image.

        Args:
            network: network with a KV cache.
            table: token embeddings.
            view: network input of the image's slots.
            cache: KV cache of everything before the image.
            logits: logits of the token after `<image>`.

        Returns:
            The cache and the logits, conditional rows first; without guidance, the unchanged
            arguments.
        """
        if self.num_branches == 1:
            return cache, logits
        first = jax.tree.map(lambda x: x[:, :1], view)
        opening = first.replace(
            modality=jnp.full_like(first.modality, int(Modality.TEXT)),
            embeds=jnp.broadcast_to(table.embedding[self.image_token_id], first.embeds.shape),
            position=first.position - jnp.array([[[1, 0, 0]]]),
            time=jnp.ones_like(first.time),
        )
        rows = view.modality.shape[0]
        empty = jax.tree.map(jnp.zeros_like, cache)
        outputs, alone = network.decode(opening, empty)
        alone = alone.advance(jnp.ones(rows, jnp.int32))
        return cache.concat_rows(alone), jnp.concatenate([logits, outputs["token_logits"][:, 0]])

    def repeat(self, view: NoisyCanvas) -> NoisyCanvas:
        """Concatenate one copy of the view's rows for each branch."""
        return jax.tree.map(lambda x: jnp.concatenate([x] * self.num_branches), view)

    def combine(self, outputs: Float[Array, "b *e"]) -> Float[Array, "B *e"]:
        """Combine conditional outputs c and unconditional outputs u as u + scale (c - u)."""
        if self.num_branches == 1:
            return outputs
        conditional, alone = jnp.split(outputs, 2)
        return alone + self.scale * (conditional - alone)
