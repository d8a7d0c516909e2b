"""The mixed-modal transformer: from a noisy canvas to the outputs of the paradigm's heads."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import AttentionPattern, EmbeddingTable, Head, Modality, NoisyCanvas
from oneflow_jax.nn import attention, attention_mask, backbone, layers, partitioning, soft_cap
from oneflow_jax.nn.attention_mask import AttentionMask
from oneflow_jax.shapes import Array, Float, Outputs


class Model(nn.Module):
    """Embeds a `NoisyCanvas`, runs the backbone, and applies the heads.

    Attributes:
        config: shape of the backbone.
        vocab: number of token ids, V.
        embed_width: width of a token embedding, E.
        heads: the paradigm's heads; each gives one output for every slot.
        attention_pattern: which slots a slot may attend to: bidirectional, causal or mixed.
        has_flow_map: whether the network has the input `NoisyCanvas.interval`.
        embed_projection: whether a linear map from E to D follows the token embeddings; without
            it, E equals D.
        tied_embeddings: whether the heads over the vocabulary have the token embeddings as their
            weights, and no bias; E equals D.
        embed_scale: factor of the token embeddings at the input of the first layer.
        logit_cap: limit of the soft cap (`nn.soft_cap`) of the outputs over the vocabulary; 0
            without one.
    """

    config: backbone.TransformerConfig
    vocab: int
    embed_width: int
    heads: tuple[Head, ...]
    attention_pattern: AttentionPattern = AttentionPattern.BIDIRECTIONAL
    has_flow_map: bool = False
    embed_projection: bool = True
    tied_embeddings: bool = False
    embed_scale: float = 1.0
    logit_cap: float = 0.0
    layer = backbone.Block

    def setup(self) -> None:
        """Create token embeddings `rows`, mask embedding `mask`, projections, backbone, heads."""
        dtype, width = self.config.dtype, self.config.width
        normal = nn.initializers.normal(1.0)
        self.rows = self.param(
            "rows",
            nn.with_logical_partitioning(normal, ("vocab", "token_width")),
            (self.vocab, self.embed_width),
        )
        self.mask = self.param(
            "mask", nn.with_logical_partitioning(normal, ("embed",)), (self.embed_width,)
        )
        if self.embed_projection:
            self.text_in = layers.Linear((width,), ("embed", "width"), dtype, use_bias=True)
        self.image_in = layers.Linear((width,), ("channels", "width"), dtype, use_bias=True)
        self.clock = layers.TimestepEmbedding(width, dtype)
        if self.has_flow_map:
            self.interval_clock = layers.TimestepEmbedding(width, dtype, zero_init=True)
        self.backbone = backbone.Backbone(self.config, self.layer)
        self.outputs = {
            head.name: layers.Linear(
                (head.width,), ("width", head.axis), dtype, use_bias=True, zero_init=head.zero_init
            )
            for head in self.heads
            if not self.is_tied(head)
        }

    def embedding_table(self) -> EmbeddingTable:
        """Return the token embeddings and the mask embedding."""
        rows = partitioning.all_gather_fsdp(self.rows, ("vocab", "token_width"))
        return EmbeddingTable(embedding=rows, mask_embedding=self.mask)

    def __call__(self, view: NoisyCanvas) -> Outputs:
        """Return the output of each head for every slot, `[B L head.width]` in float32.

        Every head is applied to every slot, text or image. The paradigm selects the outputs to use.
        """
        x, _ = self._run(view, attention_mask.from_canvas(view, self.attention_pattern), None)
        return self._apply_heads(x, view)

    def prefill(
        self, view: NoisyCanvas, cache: attention.KVCache
    ) -> tuple[Outputs, attention.KVCache]:
        """Run the model on a prompt, and write its slots to an empty KV cache.

        The length of the cache stays 0 until the caller counts the slots with `KVCache.advance`.
        """
        seen = attention_mask.from_canvas(view, self.attention_pattern).pad_keys(cache.num_slots)
        x, cache = self._run(view, seen, cache)
        return self._apply_heads(x, view), cache

    def decode(
        self, view: NoisyCanvas, cache: attention.KVCache
    ) -> tuple[Outputs, attention.KVCache]:
        """Run the model on slots that follow those in the KV cache, and write them to the cache.

        The slots are consecutive tokens, or one image. The next call overwrites them unless
        `KVCache.advance` counts them as valid.
        """
        seen = attention_mask.for_decode(view, cache.length, cache.num_slots)
        x, cache = self._run(view, seen, cache)
        return self._apply_heads(x, view), cache

    def init_cache(self, batch_size: int, num_slots: int) -> attention.KVCache:
        """Create an empty KV cache."""
        size = self.config
        layer = jnp.zeros((batch_size, num_slots, size.kv_heads, size.head_width), size.dtype)
        if size.stack_layers:
            zeros = jnp.broadcast_to(layer, (size.layers, *layer.shape))
        else:
            zeros = (layer,) * size.layers
        return attention.KVCache(zeros, zeros, jnp.zeros(batch_size, jnp.int32))

    def embed(self, view: NoisyCanvas) -> Float[Array, "B L D"]:
        """Embed every slot: the input of the first layer."""
        words, patches = self.embed_text(view.embeds), self.image_in(view.latents)
        x = jnp.where((view.modality == Modality.TEXT)[..., None], words, patches)
        x += self.clock(view.time)
        if not self.has_flow_map:
            return x
        interval = jnp.zeros_like(view.time) if view.interval is None else view.interval
        return x + self.interval_clock(interval)

    def embed_text(self, embeds: Float[Array, "B L E"]) -> Float[Array, "B L D"]:
        """Return the input of the first layer for text slots, without the time embedding."""
        x = self.text_in(embeds) if self.embed_projection else embeds.astype(self.config.dtype)
        return x if self.embed_scale == 1 else self.embed_scale * x

    def is_tied(self, head: Head) -> bool:
        """Return whether the weights of a head are the token embeddings."""
        return self.tied_embeddings and head.axis == "vocab"

    def _run(
        self, view: NoisyCanvas, mask: AttentionMask, cache: attention.KVCache | None
    ) -> tuple[Float[Array, "B L D"], attention.KVCache | None]:
        x = partitioning.with_logical_constraint(self.embed(view), ("rows", "slots", "act_width"))
        size = self.config
        around = backbone.LayerInputs(
            attention_mask=mask,
            rope=size.rope.angles(view.position, size.head_width),
            is_image=view.modality == Modality.IMAGE,
        )
        if size.sliding_window:
            angles = size.local_rope.angles(view.position, size.head_width)
            around = around.replace(local=backbone.LocalInputs(angles, size.sliding_window))
        return self.backbone(x, around, cache)

    def _apply_heads(self, x: Float[Array, "B L D"], view: NoisyCanvas) -> Outputs:
        outputs = {name: head(x).astype(jnp.float32) for name, head in self.outputs.items()}
        for head in filter(self.is_tied, self.heads):
            table = self.embedding_table().embedding.astype(x.dtype)
            outputs[head.name] = (x @ table.T).astype(jnp.float32)
        for head in self.heads:
            if head.axis == "vocab":
                outputs[head.name] = soft_cap.apply(outputs[head.name], self.logit_cap)
            if head.adds_token_likelihood:
                outputs[head.name] += self._token_log_likelihood(view)
        return outputs

    def _token_log_likelihood(self, view: NoisyCanvas) -> Float[Array, "B L V"]:
        """Return log p(x_t | id) of each token id, up to a constant (`LikelihoodObjective`).

        No gradient passes through the embeddings: otherwise training would first push all
        embeddings apart.
        """
        table = jax.lax.stop_gradient(self.embedding_table().normalize())
        t = view.time[..., None]
        residual = jax.lax.stop_gradient(view.embeds) - (1 - t) * table.mask_embedding[None, None]
        limited = jnp.minimum(t, 0.5)
        scaled = limited / jnp.square(1 - limited) * residual
        dtype = self.config.dtype
        return (scaled.astype(dtype) @ table.embedding.T.astype(dtype)).astype(jnp.float32)
