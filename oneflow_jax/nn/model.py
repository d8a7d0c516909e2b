"""The mixed-modal transformer: slots in, what the paradigm's heads say of every slot out."""

import flax.linen as nn
import jax.numpy as jnp

from oneflow_jax.canvas import Head, Kind, Table, View
from oneflow_jax.nn import backbone, layers
from oneflow_jax.shapes import Outputs


class Model(nn.Module):
    """Embeds a view, runs the backbone, applies the heads.

    Attributes:
        size: shape of the backbone.
        vocab: number of token ids, V.
        embed_width: width of a token's vector, E.
        heads: what is to be predicted of every slot.
    """

    size: backbone.Size
    vocab: int
    embed_width: int
    heads: tuple[Head, ...]

    def setup(self) -> None:
        """The parameters: `rows`, `mask`, three input maps, the backbone, the heads."""
        dtype, width = self.size.dtype, self.size.width
        normal = nn.initializers.normal(1.0)
        self.rows = self.param(
            "rows",
            nn.with_logical_partitioning(normal, ("vocab", "embed")),
            (self.vocab, self.embed_width),
        )
        self.mask = self.param(
            "mask", nn.with_logical_partitioning(normal, ("embed",)), (self.embed_width,)
        )
        self.text_in = layers.Linear((width,), ("embed", "width"), dtype, use_bias=True)
        self.image_in = layers.Linear((width,), ("channels", "width"), dtype, use_bias=True)
        self.clock = layers.ClockEmbedding(width, dtype)
        self.backbone = backbone.Backbone(self.size)
        self.outputs = {
            head.name: layers.Linear(
                (head.width,), ("width", head.axis), dtype, use_bias=True, zero=head.zero
            )
            for head in self.heads
        }

    def table(self) -> Table:
        """The vocabulary as vectors."""
        return Table(rows=self.rows, mask=self.mask)

    def __call__(self, view: View) -> Outputs:
        """What each head says of every slot, `[B L head.width]` in float32.

        A head speaks for every slot; the paradigm reads it where it makes sense.
        """
        is_text = (view.kind == Kind.TEXT)[..., None]
        x = jnp.where(is_text, self.text_in(view.embeds), self.image_in(view.latents))
        x = x + self.clock(view.clock)
        x = nn.with_logical_constraint(x, ("rows", "slots", "act_width"))
        x = self.backbone(x, view.segment, view.position)
        return {name: head(x).astype(jnp.float32) for name, head in self.outputs.items()}
