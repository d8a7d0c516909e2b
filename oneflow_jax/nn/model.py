"""The mixed-modal transformer: slots in, what the paradigm's heads say of every slot out."""

import flax.linen as nn
import jax.numpy as jnp

from oneflow_jax.canvas import AttentionPattern, EmbeddingTable, Head, Modality, NoisyCanvas
from oneflow_jax.nn import attention, attention_mask, backbone, layers, partitioning
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Float, Outputs


class Model(nn.Module):
    """Embeds a view, runs the backbone, applies the heads.

    Attributes:
        size: shape of the backbone.
        vocab: number of token ids, V.
        embed_width: width of a token's vector, E.
        heads: what is to be predicted of every slot.
        attend: what a slot may see.
    """

    size: backbone.TransformerConfig
    vocab: int
    embed_width: int
    heads: tuple[Head, ...]
    attend: AttentionPattern = AttentionPattern.BIDIRECTIONAL
    layer = backbone.Block

    def setup(self) -> None:
        """The parameters: `rows`, `mask`, three input maps, the backbone, the heads."""
        dtype, width = self.size.dtype, self.size.width
        normal = nn.initializers.normal(1.0)
        self.rows = self.param(
            "rows",
            nn.with_logical_partitioning(normal, ("vocab", "token_width")),
            (self.vocab, self.embed_width),
        )
        self.mask = self.param(
            "mask", nn.with_logical_partitioning(normal, ("embed",)), (self.embed_width,)
        )
        self.text_in = layers.Linear((width,), ("embed", "width"), dtype, use_bias=True)
        self.image_in = layers.Linear((width,), ("channels", "width"), dtype, use_bias=True)
        self.clock = layers.TimestepEmbedding(width, dtype)
        self.backbone = backbone.Backbone(self.size, self.layer)
        self.outputs = {
            head.name: layers.Linear(
                (head.width,), ("width", head.axis), dtype, use_bias=True, zero=head.zero
            )
            for head in self.heads
        }

    def table(self) -> EmbeddingTable:
        """The vocabulary as vectors."""
        rows = partitioning.all_gather_fsdp(self.rows, ("vocab", "token_width"))
        return EmbeddingTable(rows=rows, mask=self.mask)

    def __call__(self, view: NoisyCanvas) -> Outputs:
        """What each head says of every slot, `[B L head.width]` in float32.

        A head speaks for every slot; the paradigm reads it where it makes sense.
        """
        x, _ = self._run(view, attention_mask.from_canvas(view, self.attend), None)
        return self._apply_heads(x)

    def prefill(
        self, view: NoisyCanvas, cache: attention.KVCache
    ) -> tuple[Outputs, attention.KVCache]:
        """The same, and the cache, empty before, with all slots in it; none is counted as valid."""
        seen = attention_mask.from_canvas(view, self.attend).padded(cache.key.shape[2])
        x, cache = self._run(view, seen, cache)
        return self._apply_heads(x), cache

    def after(
        self, view: NoisyCanvas, cache: attention.KVCache
    ) -> tuple[Outputs, attention.KVCache]:
        """The same for slots that come after those in a cache, and the cache with them in it.

        They are one after another, or one picture. Until `Cache.advanced` counts them as valid they
        are overwritten by the next call.
        """
        seen = attention_mask.for_decode(view, cache.length, cache.key.shape[2])
        x, cache = self._run(view, seen, cache)
        return self._apply_heads(x), cache

    def cache(self, rows: int, slots: int) -> attention.KVCache:
        """An empty cache."""
        size = self.size
        shape = (size.layers, rows, slots, size.kv_heads, size.head_width)
        zeros = jnp.zeros(shape, size.dtype)
        return attention.KVCache(zeros, zeros, jnp.zeros(rows, jnp.int32))

    def embedded(self, view: NoisyCanvas) -> Float[Array, "B L D"]:
        """Every slot as the first layer sees it."""
        words, patches = self.text_in(view.embeds), self.image_in(view.latents)
        x = jnp.where((view.kind == Modality.TEXT)[..., None], words, patches)
        return x + self.clock(view.clock)

    def _run(
        self, view: NoisyCanvas, seen: AttentionMask, cache: attention.KVCache | None
    ) -> tuple[Float[Array, "B L D"], attention.KVCache | None]:
        x = partitioning.with_logical_constraint(
            self.embedded(view), ("rows", "slots", "act_width")
        )
        around = backbone.LayerInputs(
            sight=seen,
            rotation=layers.rope_angles(view.position, self.size.head_width),
            pictured=view.kind == Modality.IMAGE,
        )
        return self.backbone(x, around, cache)

    def _apply_heads(self, x: Float[Array, "B L D"]) -> Outputs:
        return {name: head(x).astype(jnp.float32) for name, head in self.outputs.items()}
