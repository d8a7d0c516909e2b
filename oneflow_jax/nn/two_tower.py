"""A transformer with two towers: separate parameters for text slots and for image slots.

Shi et al., LMFusion: Adapting Pretrained Language Models for Multimodal Generation, 2024. Each
tower has its own norms, MLPs, and query, key, value and output projections. Attention runs over all
slots jointly. The text tower is first trained alone, as a `TextModel`, and then it is frozen: its
outputs for documents without images stay bitwise equal.
"""

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Modality, NoisyCanvas
from oneflow_jax.nn import attention, backbone
from oneflow_jax.nn.model import Model
from oneflow_jax.shapes import Array, Float, PyTree

IMAGE_PARAMS = r"backbone/blocks/image/|image_in/|clock/|outputs_image/"
"""Regular expression that finds the names of the image tower's parameters."""

TEXT_PARAMS = rf"^(?!{IMAGE_PARAMS})"
"""Regular expression that finds the names of all other parameters, those of the text tower. They
include the last norm: images need no norm of their own there, since the projection to patches that
follows can learn their scale."""


class ModalityBlock(backbone.TransformerLayer):
    """A layer with one block for text slots and one for image slots."""

    def setup(self) -> None:
        """Create the two blocks."""
        self.text = backbone.Block(self.config)
        self.image = backbone.Block(self.config)

    def pre_attention(
        self, x: Float[Array, "B L D"], layer_inputs: backbone.LayerInputs
    ) -> attention.QKV:
        """Compute queries, keys and values."""
        return self._select(
            layer_inputs,
            self.image.pre_attention(x, layer_inputs),
            self.text.pre_attention(x, layer_inputs),
        )

    def post_attention(
        self,
        x: Float[Array, "B L D"],
        layer_inputs: backbone.LayerInputs,
        attn_output: Float[Array, "B L H A"],
    ) -> Float[Array, "B L D"]:
        """Compute the layer's output from its input and the output of attention."""
        by_image = self.image.post_attention(x, layer_inputs, attn_output)
        return self._select(
            layer_inputs, by_image, self.text.post_attention(x, layer_inputs, attn_output)
        )

    def _select(self, layer_inputs: backbone.LayerInputs, image: PyTree, text: PyTree) -> PyTree:
        def pick(image_leaf: Array, text_leaf: Array) -> Array:
            shape = layer_inputs.is_image.shape + (1,) * (image_leaf.ndim - 2)
            return jnp.where(layer_inputs.is_image.reshape(shape), image_leaf, text_leaf)

        return jax.tree.map(pick, image, text)


class TextModel(Model):
    """The mixed-modal transformer whose text slots get no time embedding.

    Its layers are the text tower of a `TwoTowerModel`.
    """

    def embed(self, view: NoisyCanvas) -> Float[Array, "B L D"]:
        """Embed every slot: the input of the first layer."""
        pictures = self.image_in(view.latents) + self.clock(view.time)
        words = self.embed_text(view.embeds)
        return jnp.where((view.modality == Modality.TEXT)[..., None], words, pictures)


class TwoTowerModel(TextModel):
    """The mixed-modal transformer with two towers."""

    layer = ModalityBlock


def add_image_tower(params: PyTree) -> PyTree:
    """Return the parameters of a `TwoTowerModel` from those of a `TextModel`.

    The image tower is a copy of the text tower.
    """
    blocks = params["backbone"][backbone.STACK]
    towers = {"text": blocks, "image": jax.tree.map(jnp.copy, blocks)}
    return params | {"backbone": params["backbone"] | {backbone.STACK: towers}}


def select_text_tower(params: PyTree) -> PyTree:
    """Return the parameters of the `TextModel` in a `TwoTowerModel`: `add_image_tower` reversed.

    `params` may be any tree with the names of the parameters.
    """
    blocks = params["backbone"][backbone.STACK]["text"]
    return params | {"backbone": params["backbone"] | {backbone.STACK: blocks}}
