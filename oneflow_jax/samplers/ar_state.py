"""A page that is being written from left to right: documents of a batch, a slot or picture a step.

`writing` says in which order the steps come. A row's randomness goes by the number of its own
slots, so that no row depends on the others.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Canvas, EmbeddingTable, InsertPolicy, Modality, NoisyCanvas
from oneflow_jax.samplers import ar_guidance, ar_images, canvas_append, token_sampling
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, PyTree


@dataclasses.dataclass(frozen=True)
class TokenSpace:
    """What may be written.

    Attributes:
        vocab: number of token ids, V.
        words: range of the ids of words.
        image_token: the id that opens a picture.
        end: the id that ends a document.
        grid: rows and columns of a picture.
    """

    vocab: int
    words: tuple[int, int]
    image_token: int
    end: int
    grid: tuple[int, int]

    @property
    def patches(self) -> int:
        """Slots of a picture, N."""
        return self.grid[0] * self.grid[1]


@flax.struct.dataclass
class DecodeState:
    """Documents as far as they are written; fields bear a first axis B.

    Attributes:
        canvas: what is written, in order, from the first slot on; the rest is PAD.
        used: slots written.
        source: the next slot of the prompt.
        opening: an `Opening`: of the gap that is being written into.
        born: whether a picture comes next that the prompt does not have.
        order: of the slot written last.
        full: something was not written because there was no room.
        logits: of the next token.
        cache: of all that is written.
    """

    canvas: Canvas
    used: Int[Array, "B"]
    source: Int[Array, "B"]
    opening: Int[Array, "B"]
    born: Bool[Array, "B"]
    order: Int[Array, "B"]
    full: Bool[Array, "B"]
    logits: Float[Array, "B V"]
    cache: PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class DecodeProgram:
    """One batch that is being written: the steps, bound to what never changes.

    Attributes:
        alphabet: what may be written.
        pictures: how pictures are made.
        choice: how words are drawn.
        network: with a cache.
        table: the vocabulary as vectors.
        keys: a key for each row.
        prompt: documents with gaps, in the slots from the first on.
    """

    alphabet: TokenSpace
    pictures: ar_images.ImageSampler
    choice: token_sampling.TokenSampling
    network: ar_guidance.CachedModel
    table: EmbeddingTable
    keys: Key[Array, "B"]
    prompt: Canvas

    @property
    def asked(self) -> Int[Array, "B"]:
        """Slots of each row's prompt."""
        return jnp.sum(self.prompt.kind != Modality.PAD, axis=1)

    @property
    def length(self) -> int:
        """Slots of a row, L."""
        return self.prompt.ids.shape[1]

    def begun(self) -> DecodeState:
        """The prompt up to its first gap, read in one pass."""
        prompt, rows = self.prompt, self.asked.shape[0]
        open_before = jnp.cumsum(prompt.opening > 0, axis=1) - (prompt.opening > 0)
        inside = jnp.cumprod(
            prompt.fixed & (prompt.kind != Modality.PAD) & (open_before == 0), axis=1
        )
        count = jnp.sum(inside, axis=1)
        kept = inside.astype(bool)
        canvas = canvas_append.keep_slots(prompt, kept)
        cache = self.network.cache(rows, self.length + self.alphabet.patches)
        outputs, cache = self.network.prefill(self._view(canvas), cache)
        last = count - 1
        return DecodeState(
            canvas=canvas,
            used=count,
            source=count,
            opening=canvas_append.gather_rows(prompt.opening, last),
            born=jnp.zeros(rows, bool),
            order=canvas_append.gather_rows(prompt.position, last)[:, 0],
            full=jnp.zeros(rows, bool),
            logits=canvas_append.gather_rows(outputs["token_logits"], last),
            cache=cache.advanced(count),
        )

    def done(self, written: DecodeState) -> Bool[Array, "B"]:
        """Whether all of the prompt is written and no gap is open."""
        return (
            (written.opening == InsertPolicy.CLOSED)
            & (written.source >= self.asked)
            & ~written.born
        )

    def wants_picture(self, written: DecodeState) -> Bool[Array, "B"]:
        """Whether a picture comes next."""
        given = (written.source < self.asked) & (
            canvas_append.gather_rows(self.prompt.kind, self._next(written)) == Modality.IMAGE
        )
        return written.born | ((written.opening == InsertPolicy.CLOSED) & given)

    def write(self, written: DecodeState, writing: Bool[Array, "B"]) -> DecodeState:
        """The next token of the rows that are writing."""
        alphabet, prompt = self.alphabet, self.prompt
        at = self._next(written)
        left = self.asked - written.source
        closing = jnp.where(left > 0, canvas_append.gather_rows(prompt.ids, at), alphabet.end)
        # What must still come: the rest of the prompt, or <end>.
        room = self.length - written.used - jnp.maximum(left, 1)
        drawn = self._sample_token(written, closing, room)
        in_gap = written.opening != InsertPolicy.CLOSED
        token = jnp.where(in_gap, drawn, closing)
        copied = ~in_gap | (token == closing)
        from_prompt = copied & (left > 0)
        order = written.order + 1
        grown = canvas_append.append(
            written.canvas,
            written.used,
            writing,
            ids=token[:, None],
            latents=jnp.zeros((*token.shape, 1, prompt.latents.shape[-1])),
            kind=Modality.TEXT,
            given=(from_prompt & canvas_append.gather_rows(prompt.fixed, at))[:, None],
            position=jnp.stack([order, 0 * order, 0 * order], axis=-1)[:, None],
        )
        view = self._view(canvas_append.slice_rows(grown, written.used, 1))
        outputs, cache = self.network.after(view, written.cache)
        opened = jnp.where(
            from_prompt, canvas_append.gather_rows(prompt.opening, at), int(InsertPolicy.CLOSED)
        )
        after = DecodeState(
            canvas=grown,
            used=written.used + 1,
            source=written.source + from_prompt,
            opening=jnp.where(copied, opened, written.opening),
            born=~copied & (token == alphabet.image_token),
            order=order,
            full=written.full | (in_gap & (room <= 0)),
            logits=outputs["token_logits"][:, 0],
            cache=written.cache,
        )
        return self._chosen(writing, after, written, cache, 1)

    def draw(self, written: DecodeState, pictured: Bool[Array, "B"]) -> DecodeState:
        """The pictures of the rows that wait for one: made, or as the prompt gives them."""
        alphabet, prompt = self.alphabet, self.prompt
        patches, place = alphabet.patches, self._next(written)
        given = ~written.born & canvas_append.gather_rows(prompt.fixed, place)
        source = ar_images.ImageContent(
            *canvas_append.slice_rows((prompt.ids, prompt.latents), written.source, patches)
        )
        order = written.order + 1
        grown = canvas_append.append(
            written.canvas,
            written.used,
            pictured,
            ids=source.ids,
            latents=source.latents,
            kind=Modality.IMAGE,
            given=jnp.broadcast_to(given[:, None], source.ids.shape),
            position=canvas_append.image_positions(order, alphabet.grid),
        )
        made = self.pictures(
            self.network,
            self.table,
            jax.vmap(jax.random.fold_in)(self.keys, written.used),
            ar_images.ImageContext(
                view=self._view(canvas_append.slice_rows(grown, written.used, patches)),
                source=source,
                given=given,
                logits=written.logits,
                cache=written.cache,
            ),
        )
        after = written.replace(
            canvas=grown.replace(
                ids=canvas_append.write_slots(grown.ids, written.used, pictured, made.picture.ids),
                latents=canvas_append.write_slots(
                    grown.latents, written.used, pictured, made.picture.latents
                ),
            ),
            used=written.used + patches,
            source=written.source + jnp.where(written.born, 0, patches),
            # A picture that the model began itself stands in a gap for anything.
            opening=jnp.where(
                written.born,
                written.opening,
                canvas_append.gather_rows(
                    prompt.opening, jnp.minimum(place + patches - 1, self.length - 1)
                ),
            ),
            born=jnp.zeros_like(written.born),
            order=order,
            logits=made.logits,
        )
        return self._chosen(pictured, after, written, made.cache, patches)

    def _sample_token(
        self, written: DecodeState, closing: Int[Array, "B"], room: Int[Array, "B"]
    ) -> Int[Array, "B"]:
        """A token for each row: a word if there is room, what closes the gap, or <image>."""
        alphabet = self.alphabet
        ids = jnp.arange(alphabet.vocab)
        word = token_sampling.allowed_ids((alphabet.words,), alphabet.vocab)
        legal = word[None] & (room > 0)[:, None]
        born = (written.opening == InsertPolicy.ANYTHING) & (room > alphabet.patches)
        legal |= born[:, None] & (ids == alphabet.image_token)[None]
        legal |= ids[None] == closing[:, None]
        choice = self.choice
        log_p = jax.vmap(
            lambda logits, legal: token_sampling.sampling_log_probs(logits[None], legal, choice)[0]
        )(written.logits, legal)
        keys = jax.vmap(jax.random.fold_in)(self.keys, written.used)
        return jax.vmap(jax.random.categorical)(keys, log_p)

    def _next(self, written: DecodeState) -> Int[Array, "B"]:
        return jnp.minimum(written.source, self.length - 1)

    def _view(self, canvas: Canvas) -> NoisyCanvas:
        shown = jnp.where(canvas.is_image, int(self.pictures.shown), canvas.kind)
        embeds, clock = self.table.rows[canvas.ids], jnp.ones(canvas.ids.shape)
        return canvases.noisy_canvas(canvas.replace(kind=shown), embeds, canvas.latents, clock)

    def _chosen(
        self,
        rows: Bool[Array, "B"],
        after: DecodeState,
        before: DecodeState,
        cache: PyTree,
        slots: int,
    ) -> DecodeState:
        """The chosen rows after a step, the others before it; the cache is advanced for those."""
        picked = canvas_append.select_rows(
            rows, after.replace(cache=None), before.replace(cache=None)
        )
        return picked.replace(cache=cache.advanced(slots * rows.astype(jnp.int32)))
