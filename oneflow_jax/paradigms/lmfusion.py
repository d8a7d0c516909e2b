"""`language` and `lmfusion`: a text model; then, beside it and with it frozen, one of pictures.

Shi et al., LMFusion: Adapting Pretrained Language Models for Multimodal Generation, 2024. Both are
trained on a network of two towers (`nn.towers`):

    language   -log p(next word), of documents whose pictures are not there; trains the words' tower
    lmfusion   as `transfusion`, with the words' tower frozen; trains the pictures', which begins as
               a copy of the other

So lmfusion says of documents without pictures exactly what `language` did. What words come after a
picture it learns by what the pictures' tower tells the words'. Departures from the paper: flow
matching in place of DDPM, as in `transfusion`; patches go in and out by linear maps, not a U-Net.
"""

import dataclasses

import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, EmbeddingTable, Modality, NoisyCanvas
from oneflow_jax.paradigms import transfusion
from oneflow_jax.shapes import Array, Float, Key


@dataclasses.dataclass(frozen=True)
class LMFusion(transfusion.Transfusion):
    """Next tokens and flows of pictures; what differs is the network, and which of it is frozen."""


@dataclasses.dataclass(frozen=True)
class Language(transfusion.Transfusion):
    """Next tokens, as if there were no pictures; `mix` is to be `tasks.ALL`, so that none are."""

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, transfusion.Targets]:
        """The row without its pictures, whose slots tell of nothing."""
        view, targets = super().corrupt(key, u, canvas, table)
        hidden = canvas.is_image
        view = view.replace(
            kind=jnp.where(hidden, int(Modality.PAD), view.kind),
            segment=jnp.where(hidden, 0, view.segment),
        )
        nothing = jnp.zeros_like(targets.image)
        return view, targets.replace(text=targets.text & ~hidden, image=nothing)
