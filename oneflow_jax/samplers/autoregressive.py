"""The sampler of paradigms that write from left to right: a cache, and one slot or picture a step.

The prompt's beginning is read in one pass. Then every row takes its next slot: given by the prompt,
or drawn where there is a gap. A gap is closed by the token that follows it in the prompt, or by
<end>; what is drawn there is a word, that token or, if the gap is for anything, <image>. Rows that
have come to a picture wait until all others have too, or are done; then their pictures are made at
once.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Table
from oneflow_jax.paradigms import base
from oneflow_jax.paradigms.base import Moments, Plan, Sample
from oneflow_jax.samplers import ar_guidance, ar_images, ar_state
from oneflow_jax.shapes import Array, Int, Key

MOMENTS = 64
"""Moments that are kept for people to look at: half of them the first, step by step."""


@flax.struct.dataclass
class Progress:
    """The documents after n steps, the passes taken, and the moments so far."""

    n: Int[Array, ""]
    passes: Int[Array, ""]
    written: ar_state.Written
    moments: Moments | None


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Writes documents.

    Attributes:
        alphabet: what may be written.
        pictures: how pictures are made.
        plan: how words are drawn, and whether moments are kept.
    """

    alphabet: ar_state.Alphabet
    pictures: ar_images.Drawing
    plan: Plan

    def __call__(
        self, network: ar_guidance.Network, table: Table, keys: Key[Array, "B"], prompt: Canvas
    ) -> Sample:
        """The finished documents; a key for each row."""
        length = prompt.ids.shape[1]
        page = ar_state.Page(
            self.alphabet, self.pictures, self.plan.words, network, table, keys, prompt
        )
        passes_of_picture = self.pictures.passes(self.alphabet.patches)
        most = 2 * length
        every = -(-most // (MOMENTS // 2 - 1))

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
                lambda w: (page.draw(w, pictured), jnp.int32(passes_of_picture)),
                written,
            )
            return Progress(progress.n + 1, progress.passes + passes, written, moments)

        end = jax.lax.while_loop(
            lambda p: jnp.any(~page.done(p.written)) & (p.n < most),
            step,
            Progress(
                jnp.int32(0),
                jnp.int32(1),
                page.begun(),
                base.no_moments(prompt, MOMENTS) if self.plan.record else None,
            ),
        )
        moments = end.moments
        if moments is not None:
            moments = _kept(moments, jnp.int32(most), every, end.written, most)
            # The finished document is one step after the last.
            share = jnp.minimum(moments.times, end.n) / jnp.maximum(end.n, 1)
            moments = moments.replace(times=jnp.where(moments.times < 0, -1.0, share))
        return Sample(end.written.canvas, moments, end.passes, end.written.full)


def _kept(
    moments: Moments, n: Int[Array, ""], every: int, written: ar_state.Written, most: int
) -> Moments:
    """The moments with this one, if it is one of those that are kept."""
    first = MOMENTS // 2
    later = jnp.where(n % every == 0, first + n // every, MOMENTS)
    at = jnp.where(n < first, n, later)
    at = jnp.where(n == most, MOMENTS - 1, at)

    def keep(path: Array, x: Array) -> Array:
        return path.at[at].set(x, mode="drop")

    return moments.replace(
        canvas=jax.tree.map(keep, moments.canvas, written.canvas),
        guess=keep(moments.guess, written.canvas.latents),
        times=keep(moments.times, n.astype(jnp.float32)),
    )
