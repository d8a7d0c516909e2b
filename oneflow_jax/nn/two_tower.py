"""Two sets of weights for one transformer: words go by the one, pictures by the other.

Shi et al., LMFusion: Adapting Pretrained Language Models for Multimodal Generation, 2024: "modality
specific" norms, query, key, value and output maps and MLPs; attention over all slots jointly. The
text's tower can be trained first, alone, and frozen then: what it says of documents without
pictures does not change, to the last bit.
"""

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Modality, NoisyCanvas
from oneflow_jax.nn import attention, backbone
from oneflow_jax.nn.model import Model
from oneflow_jax.shapes import Array, Float, PyTree

IMAGE_PARAMS = r"backbone/blocks/image/|image_in/|clock/|outputs_image/"
"""Names of the parameters that are for pictures alone; all others are the text model's."""

TEXT_PARAMS = rf"^(?!{IMAGE_PARAMS})"
"""Names of the text model's. The last norm is among them: its scale means nothing to pictures,
since the map to patches follows it."""


class ModalityBlock(backbone.TransformerLayer):
    """A block for words and one for pictures; each slot asks and tells by its own."""

    def setup(self) -> None:
        """The two blocks."""
        self.text = backbone.Block(self.size)
        self.image = backbone.Block(self.size)

    def asks(self, x: Float[Array, "B L D"], around: backbone.LayerInputs) -> attention.QKV:
        """Queries, keys and values."""
        return self._select(around, self.image.asks(x, around), self.text.asks(x, around))

    def tells(
        self,
        x: Float[Array, "B L D"],
        around: backbone.LayerInputs,
        gathered: Float[Array, "B L H A"],
    ) -> Float[Array, "B L D"]:
        """The slots after having gathered."""
        by_image = self.image.tells(x, around, gathered)
        return self._select(around, by_image, self.text.tells(x, around, gathered))

    def _select(self, around: backbone.LayerInputs, image: PyTree, text: PyTree) -> PyTree:
        def pick(one: Array, other: Array) -> Array:
            shape = around.pictured.shape + (1,) * (one.ndim - 2)
            return jnp.where(around.pictured.reshape(shape), one, other)

        return jax.tree.map(pick, image, text)


class TwoTowerModel(Model):
    """The mixed-modal transformer with two towers; words know no time."""

    layer = ModalityBlock

    def embedded(self, view: NoisyCanvas) -> Float[Array, "B L D"]:
        """Every slot as the first layer sees it."""
        pictures = self.image_in(view.latents) + self.clock(view.clock)
        return jnp.where(
            (view.kind == Modality.TEXT)[..., None], self.text_in(view.embeds), pictures
        )


def init_image_tower_from_text(params: PyTree) -> PyTree:
    """The parameters with the text's blocks copied to the pictures', as image training begins."""
    blocks = params["backbone"]["blocks"]
    copied = jax.tree.map(jnp.copy, blocks["text"])
    return params | {"backbone": params["backbone"] | {"blocks": blocks | {"image": copied}}}
