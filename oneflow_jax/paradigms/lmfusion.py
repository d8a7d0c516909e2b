"""`language` trains a text model; `lmfusion` adds an image tower and freezes the text tower.

Shi et al., LMFusion: Adapting Pretrained Language Models for Multimodal Generation, 2024. Their
networks (`nn.two_tower`) have one tower of layers and two:

    language   -log p(next token) of documents whose images are removed; trains the text tower
    lmfusion   as `transfusion`, with the text tower frozen; trains the image tower, which is
               initialized from the text tower

So for documents without images, `lmfusion` makes the predictions of `language`. To predict
text after an image, the frozen text tower attends to the image's keys and values, which the image
tower learns. Two things differ from the paper: flow matching replaces DDPM, as in `transfusion`,
and linear maps replace the U-Net for patches.
"""

import dataclasses

import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, EmbeddingTable, Modality, NoisyCanvas
from oneflow_jax.paradigms import transfusion
from oneflow_jax.shapes import Array, Float, Key


@dataclasses.dataclass(frozen=True)
class LMFusion(transfusion.Transfusion):
    """Transfusion on a network of two towers, with the text tower frozen."""


@dataclasses.dataclass(frozen=True)
class Language(transfusion.Transfusion):
    """Next-token prediction on documents without their images.

    `task_mixture` must be `tasks.ALL_TARGETS`, so that no document has given images.
    """

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, transfusion.Targets]:
        """Return the clean row with PAD in place of its images, and next-token targets for text."""
        view, targets = super().corrupt(key, u, canvas, table)
        hidden = canvas.is_image
        view = view.replace(
            modality=jnp.where(hidden, int(Modality.PAD), view.modality),
            segment=jnp.where(hidden, 0, view.segment),
        )
        nothing = jnp.zeros_like(targets.image_scored)
        return view, targets.replace(
            text_scored=targets.text_scored & ~hidden, image_scored=nothing
        )
