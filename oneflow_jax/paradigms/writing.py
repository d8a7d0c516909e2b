"""The sampler of paradigms that write from left to right: a cache, and one slot or picture a step.

The prompt's beginning is read in one pass. Then every row takes its next slot: given by the prompt,
or drawn where there is a gap. A gap is closed by the token that follows it in the prompt, or by
<end>; what is drawn there is a word, that token or, if the gap is for anything, <image>. Rows that
have come to a picture wait until all others have too, or are done; then their pictures are made at
once. A row's randomness goes by the number of its own slots, so that no row depends on the others.
"""

import dataclasses
import functools
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Canvas, Kind, Opening, Table, View
from oneflow_jax.flows import predictions
from oneflow_jax.paradigms.base import Moments, Plan, Sample
from oneflow_jax.samplers import ode, tokens
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, PyTree

MOMENTS = 48
"""Moments that are kept for people to look at."""


class Network(Protocol):
    """The network with a cache, which is opaque here but for `advanced`."""

    def cache(self, rows: int, slots: int) -> PyTree:
        """An empty cache."""

    def prefill(self, view: View, cache: PyTree) -> tuple[Outputs, PyTree]:
        """What it says of a beginning, and the cache with it."""

    def after(self, view: View, cache: PyTree) -> tuple[Outputs, PyTree]:
        """What it says of slots that come next, and the cache with them."""


@dataclasses.dataclass(frozen=True)
class Alphabet:
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
class Written:
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


@flax.struct.dataclass
class Progress:
    """The documents after n steps, the passes taken, and the moments so far."""

    n: Int[Array, ""]
    passes: Int[Array, ""]
    written: Written
    moments: Moments | None


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Writes documents whose pictures are flows in between.

    Attributes:
        alphabet: what may be written.
        image: what is predicted of patches.
        plan: solver and times of pictures, how tokens are drawn.
    """

    alphabet: Alphabet
    image: predictions.Prediction
    plan: Plan

    def __call__(
        self, network: Network, table: Table, keys: Key[Array, "B"], prompt: Canvas
    ) -> Sample:
        """The finished documents; a key for each row."""
        length = prompt.ids.shape[1]
        asked = jnp.sum(prompt.kind != Kind.PAD, axis=1)
        page = _Page(self, network, table, keys, prompt, asked)
        begun = page.begun()
        most = 2 * length
        every = -(-most // (MOMENTS - 1))

        def step(progress: Progress) -> Progress:
            written = progress.written
            pictured = page.wants_picture(written)
            writing = ~page.done(written) & ~pictured
            moments = progress.moments
            if moments is not None:
                moments = _kept(moments, progress.n, every, written, most)
            written, passes = jax.lax.cond(
                jnp.any(writing),
                lambda w: (page.write(w, writing), jnp.int32(1)),
                lambda w: (page.draw(w, pictured), jnp.int32(page.picture_passes)),
                written,
            )
            return Progress(progress.n + 1, progress.passes + passes, written, moments)

        end = jax.lax.while_loop(
            lambda p: jnp.any(~page.done(p.written)) & (p.n < most),
            step,
            Progress(
                jnp.int32(0), jnp.int32(1), begun, _room(prompt) if self.plan.record else None
            ),
        )
        moments = end.moments
        if moments is not None:
            moments = _kept(moments, jnp.int32(most), every, end.written, most)
        return Sample(end.written.canvas, moments, end.passes, end.written.full)


@dataclasses.dataclass(frozen=True, eq=False)
class _Page:
    """One batch that is being written: the steps, bound to what never changes."""

    sampler: Sampler
    network: Network
    table: Table
    keys: Key[Array, "B"]
    prompt: Canvas
    asked: Int[Array, "B"]

    @property
    def picture_passes(self) -> int:
        """NFE of a picture: its flow, and one more for the cache."""
        return self.sampler.plan.schedule.evaluations + 1

    @property
    def length(self) -> int:
        """Slots of a row, L."""
        return self.prompt.ids.shape[1]

    def begun(self) -> Written:
        """The prompt up to its first gap, read in one pass."""
        prompt, rows = self.prompt, self.asked.shape[0]
        open_before = jnp.cumsum(prompt.opening > 0, axis=1) - (prompt.opening > 0)
        inside = jnp.cumprod(prompt.fixed & (prompt.kind != Kind.PAD) & (open_before == 0), axis=1)
        count = jnp.sum(inside, axis=1)
        kept = inside.astype(bool)
        canvas = _masked(prompt, kept)
        cache = self.network.cache(rows, self.length + self.sampler.alphabet.patches)
        outputs, cache = self.network.prefill(self._view(canvas, canvas.latents, kept), cache)
        last = count - 1
        return Written(
            canvas=canvas,
            used=count,
            source=count,
            opening=_at(prompt.opening, last),
            born=jnp.zeros(rows, bool),
            order=_at(prompt.position, last)[:, 0],
            full=jnp.zeros(rows, bool),
            logits=_at(outputs["token_logits"], last),
            cache=cache.advanced(count),
        )

    def done(self, written: Written) -> Bool[Array, "B"]:
        """Whether all of the prompt is written and no gap is open."""
        return (written.opening == Opening.CLOSED) & (written.source >= self.asked) & ~written.born

    def wants_picture(self, written: Written) -> Bool[Array, "B"]:
        """Whether a picture comes next."""
        given = (written.source < self.asked) & (
            _at(self.prompt.kind, self._next(written)) == Kind.IMAGE
        )
        return written.born | ((written.opening == Opening.CLOSED) & given)

    def write(self, written: Written, writing: Bool[Array, "B"]) -> Written:
        """The next token of the rows that are writing."""
        alphabet, prompt = self.sampler.alphabet, self.prompt
        at = self._next(written)
        left = self.asked - written.source
        closing = jnp.where(left > 0, _at(prompt.ids, at), alphabet.end)
        # What must still come: the rest of the prompt, or <end>.
        room = self.length - written.used - jnp.maximum(left, 1)
        drawn = self._drawn(written, closing, room)
        in_gap = written.opening != Opening.CLOSED
        token = jnp.where(in_gap, drawn, closing)
        copied = ~in_gap | (token == closing)
        from_prompt = copied & (left > 0)
        order = written.order + 1
        grown = _appended(
            written.canvas,
            written.used,
            writing,
            ids=token[:, None],
            latents=jnp.zeros((*token.shape, 1, prompt.latents.shape[-1])),
            kind=Kind.TEXT,
            fixed=(from_prompt & _at(prompt.fixed, at))[:, None],
            position=jnp.stack([order, 0 * order, 0 * order], axis=-1)[:, None],
        )
        view = self._chunk(grown, written.used, 1)
        outputs, cache = self.network.after(view, written.cache)
        opened = jnp.where(from_prompt, _at(prompt.opening, at), int(Opening.CLOSED))
        after = Written(
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
        after = _where(writing, after, written)
        return after.replace(cache=cache.advanced(writing.astype(jnp.int32)))

    def draw(self, written: Written, pictured: Bool[Array, "B"]) -> Written:
        """The pictures of the rows that wait for one: a flow each, or as the prompt gives them."""
        sampler, patches = self.sampler, self.sampler.alphabet.patches
        at = self._next(written)
        given = ~written.born & _at(self.prompt.fixed, at)
        source = jax.vmap(lambda x, i: jax.lax.dynamic_slice_in_dim(x, i, patches))(
            jnp.pad(self.prompt.latents, ((0, 0), (0, patches), (0, 0))), at
        )
        keys = jax.vmap(jax.random.fold_in)(self.keys, written.used)
        noise = jax.vmap(lambda key: jax.random.normal(key, source.shape[1:]))(keys)
        order = written.order + 1
        grown = _appended(
            written.canvas,
            written.used,
            pictured,
            ids=jnp.zeros((order.shape[0], patches), jnp.int32),
            latents=source,
            kind=Kind.IMAGE,
            fixed=jnp.broadcast_to(given[:, None], (order.shape[0], patches)),
            position=_grid(order, sampler.alphabet.grid),
        )
        chunk = self._chunk(grown, written.used, patches)

        def belief(t: Float[Array, ""], x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
            clock = jnp.broadcast_to(jnp.where(given, 1.0, t)[:, None], x.shape[:2])
            shown = jnp.where(given[:, None, None], source, x)
            outputs, _ = self.network.after(
                chunk.replace(latents=shown, clock=clock), written.cache
            )
            return sampler.image.clean(outputs["image"], shown, clock)

        solution = ode.solve(
            lambda t, x: (belief(t, x) - x) / (1 - t), noise, sampler.plan.schedule
        )
        made = belief(solution.times[-1], solution.last)
        made = jnp.where(given[:, None, None], source, made)
        outputs, cache = self.network.after(chunk.replace(latents=made), written.cache)
        from_prompt = ~written.born
        last = jnp.minimum(at + patches - 1, self.length - 1)
        after = Written(
            canvas=_put(grown, "latents", written.used, pictured, made),
            used=written.used + patches,
            source=written.source + jnp.where(from_prompt, patches, 0),
            # A picture that the model began itself stands in a gap for anything.
            opening=jnp.where(from_prompt, _at(self.prompt.opening, last), written.opening),
            born=jnp.zeros_like(written.born),
            order=order,
            full=written.full,
            logits=outputs["token_logits"][:, -1],
            cache=written.cache,
        )
        after = _where(pictured, after, written)
        return after.replace(cache=cache.advanced(patches * pictured))

    def _drawn(
        self, written: Written, closing: Int[Array, "B"], room: Int[Array, "B"]
    ) -> Int[Array, "B"]:
        """A token for each row: a word if there is room, what closes the gap, or <image>."""
        alphabet = self.sampler.alphabet
        ids = jnp.arange(alphabet.vocab)
        word = tokens.allowed((alphabet.words,), alphabet.vocab)
        legal = word[None] & (room > 0)[:, None]
        born = (written.opening == Opening.ANYTHING) & (room > alphabet.patches)
        legal |= born[:, None] & (ids == alphabet.image_token)[None]
        legal |= ids[None] == closing[:, None]
        choice = self.sampler.plan.words
        log_p = jax.vmap(
            lambda logits, legal: tokens.log_probabilities(logits[None], legal, choice)[0]
        )(written.logits, legal)
        keys = jax.vmap(jax.random.fold_in)(self.keys, written.used)
        return jax.vmap(jax.random.categorical)(keys, log_p)

    def _next(self, written: Written) -> Int[Array, "B"]:
        return jnp.minimum(written.source, self.length - 1)

    def _view(
        self, canvas: Canvas, latents: Float[Array, "B c C"], exists: Bool[Array, "B c"]
    ) -> View:
        clock = jnp.ones(exists.shape)
        return canvases.view(canvas, self.table.rows[canvas.ids], latents, clock)

    def _chunk(self, canvas: Canvas, first: Int[Array, "B"], count: int) -> View:
        """The view of `count` slots of each row from its `first` on."""

        def cut(x: Array) -> Array:
            padded = jnp.pad(x, ((0, 0), (0, count), *((0, 0),) * (x.ndim - 2)))
            return jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, count))(
                padded, first
            )

        some = jax.tree.map(cut, canvas)
        return self._view(some, some.latents, some.fixed)


def _grid(order: Int[Array, "B"], grid: tuple[int, int]) -> Int[Array, "B N 3"]:
    """Positions of a picture's slots."""
    row, column = jnp.divmod(jnp.arange(grid[0] * grid[1]), grid[1])
    shape = (order.shape[0], row.shape[0])
    return jnp.stack(
        [jnp.broadcast_to(x, shape) for x in (order[:, None], row[None], column[None])], axis=-1
    )


def _masked(canvas: Canvas, kept: Bool[Array, "B L"]) -> Canvas:
    """The canvas with the other slots empty."""
    return jax.tree.map(
        lambda x: jnp.where(kept.reshape(kept.shape + (1,) * (x.ndim - 2)), x, jnp.zeros_like(x)),
        canvas,
    )


def _appended(
    canvas: Canvas,
    used: Int[Array, "B"],
    chosen: Bool[Array, "B"],
    *,
    ids: Int[Array, "B c"],
    latents: Float[Array, "B c C"],
    kind: Kind,
    fixed: Bool[Array, "B c"],
    position: Int[Array, "B c 3"],
) -> Canvas:
    """The canvas with slots written after the used ones, in the chosen rows."""
    put = functools.partial(_put, used=used, chosen=chosen)
    for name, values in {
        "ids": ids,
        "latents": latents,
        "kind": jnp.full_like(ids, int(kind)),
        "segment": jnp.ones_like(ids),
        # Unique to what is written together: numbers of slots, from 1.
        "span": jnp.broadcast_to(used[:, None] + 1, ids.shape),
        "fixed": fixed,
        "position": position,
    }.items():
        canvas = put(canvas, name, values=values)
    return canvas


def _put(
    canvas: Canvas, name: str, used: Int[Array, "B"], chosen: Bool[Array, "B"], values: Array
) -> Canvas:
    """The canvas with `values` `[B c ...]` in one field, from `used` on, in the chosen rows."""
    field = getattr(canvas, name)
    rows, count = values.shape[:2]
    at = jnp.where(chosen[:, None], used[:, None] + jnp.arange(count)[None], field.shape[1])
    changed = field.at[jnp.arange(rows)[:, None], at].set(values.astype(field.dtype), mode="drop")
    return canvas.replace(**{name: changed})


def _where(chosen: Bool[Array, "B"], one: Written, other: Written) -> Written:
    """Row by row; the cache stays that of `other`."""

    def pick(x: Array, y: Array) -> Array:
        return jnp.where(chosen.reshape(chosen.shape + (1,) * (x.ndim - 1)), x, y)

    cache = other.cache
    picked = jax.tree.map(pick, one.replace(cache=None), other.replace(cache=None))
    return picked.replace(cache=cache)


def _at(x: Array, index: Int[Array, "B"]) -> Array:
    """Of each row the entry at its index."""
    return jax.vmap(lambda row, i: row[i])(x, index)


def _room(canvas: Canvas) -> Moments:
    """Moments that have not come yet."""
    path = jax.tree.map(lambda x: jnp.zeros((MOMENTS, *x.shape), x.dtype), canvas)
    return Moments(
        canvas=path,
        clock=jnp.ones(path.ids.shape),
        certainty=jnp.ones(path.ids.shape),
        guess=path.latents,
        times=jnp.full(MOMENTS, -1.0),
    )


def _kept(moments: Moments, n: Int[Array, ""], every: int, written: Written, most: int) -> Moments:
    """The moments with this one, if it is one of those that are kept."""
    at = jnp.where(n % every == 0, n // every, MOMENTS)
    at = jnp.where(n == most, MOMENTS - 1, at)

    def keep(path: Array, x: Array) -> Array:
        return path.at[at].set(x, mode="drop")

    return moments.replace(
        canvas=jax.tree.map(keep, moments.canvas, written.canvas),
        guess=keep(moments.guess, written.canvas.latents),
        times=keep(moments.times, jnp.minimum(n / most, 1.0)),
    )
