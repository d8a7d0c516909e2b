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

from oneflow_jax.canvas import Canvas, EmbeddingTable
from oneflow_jax.samplers import ar_guidance, ar_images, ar_state
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan, Trajectory, empty_trajectory
from oneflow_jax.shapes import Array, Int, Key

MAX_FRAMES = 64
"""Moments that are kept for people to look at: half of them the first, step by step."""


@flax.struct.dataclass
class LoopState:
    """The documents after n steps, the passes taken, and the moments so far."""

    n: Int[Array, ""]
    passes: Int[Array, ""]
    decode_state: ar_state.DecodeState
    moments: Trajectory | None


@dataclasses.dataclass(frozen=True)
class ARSampler:
    """Writes documents.

    Attributes:
        alphabet: what may be written.
        pictures: how pictures are made.
        plan: how words are drawn, and whether moments are kept.
    """

    alphabet: ar_state.TokenSpace
    pictures: ar_images.ImageSampler
    plan: SamplingPlan

    def __call__(
        self,
        network: ar_guidance.CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        prompt: Canvas,
    ) -> SampleOutput:
        """The finished documents; a key for each row."""
        length = prompt.ids.shape[1]
        page = ar_state.DecodeProgram(
            self.alphabet, self.pictures, self.plan.words, network, table, keys, prompt
        )
        passes_of_picture = self.pictures.passes(self.alphabet.patches)
        most = 2 * length
        every = -(-most // (MAX_FRAMES // 2 - 1))

        def step(progress: LoopState) -> LoopState:
            written = progress.decode_state
            pictured = page.wants_picture(written)
            writing = ~page.done(written) & ~pictured
            moments = progress.moments
            if moments is not None:
                moments = _record(moments, progress.n, every, written, most)
            written, passes = jax.lax.cond(
                jnp.any(writing),
                lambda w: (page.write(w, writing), jnp.int32(1)),
                lambda w: (page.draw(w, pictured), jnp.int32(passes_of_picture)),
                written,
            )
            return LoopState(progress.n + 1, progress.passes + passes, written, moments)

        end = jax.lax.while_loop(
            lambda p: jnp.any(~page.done(p.decode_state)) & (p.n < most),
            step,
            LoopState(
                jnp.int32(0),
                jnp.int32(1),
                page.begun(),
                empty_trajectory(prompt, MAX_FRAMES) if self.plan.record else None,
            ),
        )
        moments = end.moments
        if moments is not None:
            moments = _record(moments, jnp.int32(most), every, end.decode_state, most)
            # The finished document is one step after the last.
            share = jnp.minimum(moments.times, end.n) / jnp.maximum(end.n, 1)
            moments = moments.replace(times=jnp.where(moments.times < 0, -1.0, share))
        return SampleOutput(end.decode_state.canvas, moments, end.passes, end.decode_state.full)


def _record(
    trajectory: Trajectory,
    step: Int[Array, ""],
    stride: int,
    state: ar_state.DecodeState,
    max_steps: int,
) -> Trajectory:
    """The moments with this one, if it is one of those that are kept."""
    first = MAX_FRAMES // 2
    later = jnp.where(step % stride == 0, first + step // stride, MAX_FRAMES)
    at = jnp.where(step < first, step, later)
    at = jnp.where(step == max_steps, MAX_FRAMES - 1, at)

    def keep(path: Array, x: Array) -> Array:
        return path.at[at].set(x, mode="drop")

    return trajectory.replace(
        canvas=jax.tree.map(keep, trajectory.canvas, state.canvas),
        guess=keep(trajectory.guess, state.canvas.latents),
        times=keep(trajectory.times, step.astype(jnp.float32)),
    )
