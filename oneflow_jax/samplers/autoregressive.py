"""Sampler of autoregressive paradigms: a KV cache, and one token or image per step.

One forward pass processes the prompt up to its first gap. Then each step writes the next token of
every row: a copy from the prompt, or a sample inside a gap. Inside a gap the sampler draws a text
token, the closing token, or `<image>` if the gap may contain images. The closing token is the token
after the gap in the prompt; after a gap at the end of the prompt, it is the end token. A row whose
next item is an image waits until every other row has reached an image or is finished. So one loop
writes tokens until no row has a token as its next item, and then one step generates the images of
all waiting rows together.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, EmbeddingTable
from oneflow_jax.samplers import ar_guidance, ar_images, ar_state, token_sampling
from oneflow_jax.samplers.base import Frame, SampleOutput, finished_frame
from oneflow_jax.samplers.steps import Progress
from oneflow_jax.shapes import Array, Bool, Int, Key

MAX_FRAMES = 64
"""Maximum number of trajectory frames: half for the first steps, the rest evenly spaced."""


@flax.struct.dataclass
class WrittenDocuments:
    """The state of the sampler: NFE so far, and documents."""

    nfe: Int[Array, ""]
    decode_state: ar_state.DecodeState


@dataclasses.dataclass(frozen=True, eq=False)
class ARSampler:
    """The steps of one batch.

    Attributes:
        program: the steps of decoding, with the network and the prompts.
        nfe_per_image: NFE of a step that generates images.
    """

    program: ar_state.DecodeProgram
    nfe_per_image: int

    @property
    def num_steps(self) -> int:
        """Maximum number of steps: more than any document needs."""
        return 2 * self.program.max_length

    def start(self) -> Progress:
        """Process the prompts up to their first gaps."""
        state = WrittenDocuments(jnp.int32(1), self.program.prefill())
        start = Progress(
            step=jnp.int32(0),
            is_done=jnp.bool_(False),
            num_steps=jnp.int32(self.num_steps),
            state=state,
            max_frames=MAX_FRAMES,
            end_time=float(self.num_steps),
        )
        return start.replace(is_done=self._is_done(start))

    def advance(self, progress: Progress, stop: Int[Array, ""] | int) -> Progress:
        """Write tokens and images until `stop` steps are taken, or all rows are finished."""

        def can_continue(progress: Progress, rows: Bool[Array, "B"]) -> Bool[Array, ""]:
            return jnp.any(rows) & (progress.step < jnp.minimum(stop, self.num_steps))

        def write_tokens_then_images(progress: Progress) -> Progress:
            # Write tokens in a loop of their own: one loop with a `cond` between token and image
            # would copy the decoding state for every token.
            progress = jax.lax.while_loop(
                lambda p: can_continue(p, self._next_tokens(p)), self._write_token, progress
            )
            return jax.lax.cond(
                can_continue(progress, self._next_images(progress)),
                self._generate_images,
                lambda p: p,
                progress,
            )

        end = jax.lax.while_loop(
            lambda p: can_continue(p, ~self.program.is_done(p.state.decode_state)),
            write_tokens_then_images,
            progress,
        )
        return end.replace(is_done=self._is_done(end))

    def frame(self, progress: Progress) -> Frame:
        """Return the documents as far as they are written."""
        canvas = progress.state.decode_state.canvas
        return finished_frame(canvas, progress.step.astype(jnp.float32))

    def finish(self, progress: Progress) -> SampleOutput:
        """Return the finished documents."""
        state = progress.state.decode_state
        return SampleOutput(state.canvas, self.frame(progress), progress.state.nfe, state.truncated)

    def _is_done(self, progress: Progress) -> Bool[Array, ""]:
        finished = jnp.all(self.program.is_done(progress.state.decode_state))
        return finished | (progress.step >= self.num_steps)

    def _write_token(self, progress: Progress) -> Progress:
        rows, state = self._next_tokens(progress), progress.state.decode_state
        return self._take_step(progress, self.program.decode_token(state, rows), 1)

    def _generate_images(self, progress: Progress) -> Progress:
        rows, state = self._next_images(progress), progress.state.decode_state
        written = self.program.generate_image(state, rows)
        return self._take_step(progress, written, self.nfe_per_image)

    def _take_step(self, progress: Progress, written: ar_state.DecodeState, nfe: int) -> Progress:
        state = WrittenDocuments(progress.state.nfe + nfe, written)
        return progress.replace(step=progress.step + 1, state=state)

    def _next_images(self, progress: Progress) -> Bool[Array, "B"]:
        return self.program.is_image_next(progress.state.decode_state)

    def _next_tokens(self, progress: Progress) -> Bool[Array, "B"]:
        unfinished = ~self.program.is_done(progress.state.decode_state)
        return unfinished & ~self._next_images(progress)


def make_sampler(
    token_space: token_sampling.TokenSpace,
    image_sampler: ar_images.ImageSampler,
    choice: token_sampling.TokenSampling,
    network: ar_guidance.CachedModel,
    table: EmbeddingTable,
    keys: Key[Array, "B"],
    prompt: Canvas,
) -> ARSampler:
    """Return the sampler of a batch.

    Args:
        token_space: token ids that may be sampled.
        image_sampler: sampler of images.
        choice: sampling parameters of text tokens.
        network: network with a KV cache.
        table: token embeddings.
        keys: one PRNG key per row.
        prompt: documents with gaps, starting at the first slot of each row.
    """
    program = ar_state.DecodeProgram(
        token_space, image_sampler, choice, network, table, keys, prompt
    )
    return ARSampler(program, image_sampler.nfe(token_space.patches_per_image))
