"""State and steps of autoregressive decoding: each step writes one token or one image per row.

The module `autoregressive` runs the loop over the steps. The random numbers of a row depend only on
its key and its number of written slots, so the rows of a batch do not influence each other.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Canvas, EmbeddingTable, InsertPolicy, Modality, NoisyCanvas
from oneflow_jax.samplers import ar_guidance, ar_images, canvas_append, token_sampling
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, PyTree


@flax.struct.dataclass
class DecodeState:
    """Partially written documents; every field has the leading axis B.

    Attributes:
        canvas: written slots in reading order, from the first slot; the rest is PAD.
        length: number of written slots.
        prompt_index: index of the next slot of the prompt to copy.
        open_gap: `InsertPolicy` of the prompt's gap that is being filled; NONE outside of gaps.
        image_pending: True if the model has sampled `<image>` and the image comes next.
        order: reading order of the last written slot.
        truncated: True if the row ran out of slots before the document was complete.
        logits: logits of the next token.
        cache: KV cache of all written slots.
    """

    canvas: Canvas
    length: Int[Array, "B"]
    prompt_index: Int[Array, "B"]
    open_gap: Int[Array, "B"]
    image_pending: Bool[Array, "B"]
    order: Int[Array, "B"]
    truncated: Bool[Array, "B"]
    logits: Float[Array, "B V"]
    cache: PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class DecodeProgram:
    """The steps that decode one batch, and the inputs that all steps share.

    Attributes:
        token_space: token ids that may be sampled.
        image_sampler: sampler of images.
        token_sampling: sampling parameters of text tokens.
        network: network with a KV cache.
        table: token embeddings.
        keys: one PRNG key per row.
        prompt: documents with gaps, starting at the first slot of each row.
    """

    token_space: token_sampling.TokenSpace
    image_sampler: ar_images.ImageSampler
    token_sampling: token_sampling.TokenSampling
    network: ar_guidance.CachedModel
    table: EmbeddingTable
    keys: Key[Array, "B"]
    prompt: Canvas

    @property
    def prompt_lengths(self) -> Int[Array, "B"]:
        """Number of slots of each row's prompt."""
        return jnp.sum(self.prompt.modality != Modality.PAD, axis=1)

    @property
    def max_length(self) -> int:
        """Number L of slots of a row."""
        return self.prompt.ids.shape[1]

    def prefill(self) -> DecodeState:
        """Process the prompt up to its first gap in one forward pass."""
        prompt, rows = self.prompt, self.prompt_lengths.shape[0]
        open_before = jnp.cumsum(prompt.insertable > 0, axis=1) - (prompt.insertable > 0)
        inside = jnp.cumprod(
            prompt.is_given & (prompt.modality != Modality.PAD) & (open_before == 0), axis=1
        )
        count = jnp.sum(inside, axis=1)
        in_prefix = inside.astype(bool)
        canvas = canvas_append.keep_slots(prompt, in_prefix)
        cache = self.network.init_cache(rows, self.max_length + self.token_space.patches_per_image)
        outputs, cache = self.network.prefill(self._make_noisy_canvas(canvas), cache)
        last = count - 1
        return DecodeState(
            canvas=canvas,
            length=count,
            prompt_index=count,
            open_gap=canvas_append.gather_rows(prompt.insertable, last),
            image_pending=jnp.zeros(rows, bool),
            order=canvas_append.gather_rows(prompt.position, last)[:, 0],
            truncated=jnp.zeros(rows, bool),
            logits=canvas_append.gather_rows(outputs["token_logits"], last),
            cache=cache.advance(count),
        )

    def is_done(self, state: DecodeState) -> Bool[Array, "B"]:
        """Return which rows are finished: the whole prompt is written and no gap is open."""
        return (
            (state.open_gap == InsertPolicy.NONE)
            & (state.prompt_index >= self.prompt_lengths)
            & ~state.image_pending
        )

    def is_image_next(self, state: DecodeState) -> Bool[Array, "B"]:
        """Return which rows have an image as their next item."""
        prompt_has_image = (state.prompt_index < self.prompt_lengths) & (
            canvas_append.gather_rows(self.prompt.modality, self._prompt_cursor(state))
            == Modality.IMAGE
        )
        return state.image_pending | ((state.open_gap == InsertPolicy.NONE) & prompt_has_image)

    def decode_token(self, state: DecodeState, selected: Bool[Array, "B"]) -> DecodeState:
        """Write each selected row's next token: sampled inside a gap, else from the prompt."""
        alphabet, prompt = self.token_space, self.prompt
        at = self._prompt_cursor(state)
        left = self.prompt_lengths - state.prompt_index
        closing = jnp.where(
            left > 0, canvas_append.gather_rows(prompt.ids, at), alphabet.end_token_id
        )
        # Count the free slots, without those reserved for the rest of the prompt or the end token.
        room = self.max_length - state.length - jnp.maximum(left, 1)
        drawn = self._sample_token(state, closing, room)
        in_gap = state.open_gap != InsertPolicy.NONE
        token = jnp.where(in_gap, drawn, closing)
        copied = ~in_gap | (token == closing)
        from_prompt = copied & (left > 0)
        order = state.order + 1
        grown = canvas_append.append(
            state.canvas,
            state.length,
            selected,
            ids=token[:, None],
            latents=jnp.zeros((*token.shape, 1, prompt.latents.shape[-1])),
            kind=Modality.TEXT,
            given=(from_prompt & canvas_append.gather_rows(prompt.is_given, at))[:, None],
            position=jnp.stack([order, 0 * order, 0 * order], axis=-1)[:, None],
        )
        view = self._make_noisy_canvas(canvas_append.slice_rows(grown, state.length, 1))
        outputs, cache = self.network.decode(view, state.cache)
        opened = jnp.where(
            from_prompt, canvas_append.gather_rows(prompt.insertable, at), int(InsertPolicy.NONE)
        )
        after = DecodeState(
            canvas=grown,
            length=state.length + 1,
            prompt_index=state.prompt_index + from_prompt,
            open_gap=jnp.where(copied, opened, state.open_gap),
            image_pending=~copied & (token == alphabet.image_token_id),
            order=order,
            truncated=state.truncated | (in_gap & (room <= 0)),
            logits=outputs["token_logits"][:, 0],
            cache=state.cache,
        )
        return self._update_rows(selected, after, state, cache, 1)

    def generate_image(self, state: DecodeState, selected: Bool[Array, "B"]) -> DecodeState:
        """Write the next image of the selected rows: generated, or copied from the prompt."""
        alphabet, prompt = self.token_space, self.prompt
        patches, place = alphabet.patches_per_image, self._prompt_cursor(state)
        is_given = ~state.image_pending & canvas_append.gather_rows(prompt.is_given, place)
        source = ar_images.ImageContent(
            *canvas_append.slice_rows((prompt.ids, prompt.latents), state.prompt_index, patches)
        )
        order = state.order + 1
        grown = canvas_append.append(
            state.canvas,
            state.length,
            selected,
            ids=source.ids,
            latents=source.latents,
            kind=Modality.IMAGE,
            given=jnp.broadcast_to(is_given[:, None], source.ids.shape),
            position=canvas_append.image_positions(order, alphabet.grid),
        )
        result = self.image_sampler(
            self.network,
            self.table,
            jax.vmap(jax.random.fold_in)(self.keys, state.length),
            ar_images.ImageContext(
                view=self._make_noisy_canvas(
                    canvas_append.slice_rows(grown, state.length, patches)
                ),
                prompt_image=source,
                is_given=is_given,
                logits=state.logits,
                cache=state.cache,
            ),
        )
        after = state.replace(
            canvas=grown.replace(
                ids=canvas_append.write_slots(grown.ids, state.length, selected, result.image.ids),
                latents=canvas_append.write_slots(
                    grown.latents, state.length, selected, result.image.latents
                ),
            ),
            length=state.length + patches,
            prompt_index=state.prompt_index + jnp.where(state.image_pending, 0, patches),
            # An image that the model starts is inside an open gap, and the gap stays open. After an
            # image of the prompt, open the gap that follows the image, if any.
            open_gap=jnp.where(
                state.image_pending,
                state.open_gap,
                canvas_append.gather_rows(
                    prompt.insertable, jnp.minimum(place + patches - 1, self.max_length - 1)
                ),
            ),
            image_pending=jnp.zeros_like(state.image_pending),
            order=order,
            logits=result.logits,
        )
        return self._update_rows(selected, after, state, result.cache, patches)

    def _sample_token(
        self, state: DecodeState, closing_token: Int[Array, "B"], free_slots: Int[Array, "B"]
    ) -> Int[Array, "B"]:
        """Sample a token for each row.

        Three kinds of tokens are allowed: the token that closes the gap; text tokens, if a slot is
        free; and `<image>`, if the gap may contain images and an image fits.
        """
        alphabet = self.token_space
        ids = jnp.arange(alphabet.vocab_size)
        word = token_sampling.allowed_ids((alphabet.text_id_range,), alphabet.vocab_size)
        legal = word[None] & (free_slots > 0)[:, None]
        born = (state.open_gap == InsertPolicy.ANY) & (free_slots > alphabet.patches_per_image)
        legal |= born[:, None] & (ids == alphabet.image_token_id)[None]
        legal |= ids[None] == closing_token[:, None]
        choice = self.token_sampling
        log_p = jax.vmap(
            lambda logits, legal: token_sampling.sampling_log_probs(logits[None], legal, choice)[0]
        )(state.logits, legal)
        keys = jax.vmap(jax.random.fold_in)(self.keys, state.length)
        return jax.vmap(jax.random.categorical)(keys, log_p)

    def _prompt_cursor(self, state: DecodeState) -> Int[Array, "B"]:
        return jnp.minimum(state.prompt_index, self.max_length - 1)

    def _make_noisy_canvas(self, canvas: Canvas) -> NoisyCanvas:
        modality = jnp.where(
            canvas.is_image, int(self.image_sampler.network_modality), canvas.modality
        )
        embeds, time = self.table.embedding[canvas.ids], jnp.ones(canvas.ids.shape)
        return canvases.noisy_canvas(
            canvas.replace(modality=modality), embeds, canvas.latents, time
        )

    def _update_rows(
        self,
        selected: Bool[Array, "B"],
        after: DecodeState,
        before: DecodeState,
        cache: PyTree,
        num_slots: int,
    ) -> DecodeState:
        """Apply a step to the selected rows only, and advance their cache by `num_slots`."""
        picked = canvas_append.select_rows(
            selected, after.replace(cache=None), before.replace(cache=None)
        )
        return picked.replace(cache=cache.advance(num_slots * selected.astype(jnp.int32)))
