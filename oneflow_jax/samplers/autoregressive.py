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
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan, Trajectory, empty_trajectory
from oneflow_jax.shapes import Array, Bool, Int, Key

MAX_FRAMES = 64
"""Number of trajectory frames: half for the first steps, the rest evenly spaced over all steps."""


@flax.struct.dataclass
class LoopState:
    """Loop state: step number, NFE so far, documents, and recorded trajectory."""

    step: Int[Array, ""]
    nfe: Int[Array, ""]
    decode_state: ar_state.DecodeState
    trajectory: Trajectory | None


@dataclasses.dataclass(frozen=True, eq=False)
class WriteLoop:
    """The loop over the steps of one batch.

    Attributes:
        program: the steps of decoding.
        nfe_per_image: NFE of a step that generates images.
    """

    program: ar_state.DecodeProgram
    nfe_per_image: int

    @property
    def max_steps(self) -> int:
        """Maximum number of steps: more than any document needs."""
        return 2 * self.program.max_length

    def run(self, start: LoopState) -> LoopState:
        """Run steps until all rows are finished."""
        end = jax.lax.while_loop(
            lambda p: self._can_continue(p, ~self.program.is_done(p.decode_state)),
            self._write_tokens_then_images,
            start,
        )
        return end.replace(trajectory=end.trajectory and self._finish(end))

    def _write_tokens_then_images(self, progress: LoopState) -> LoopState:
        # Write tokens in a loop of their own: one loop with a `cond` between token and image would
        # copy the decoding state for every token.
        progress = jax.lax.while_loop(
            lambda p: self._can_continue(p, self._next_tokens(p)), self._write_token, progress
        )
        return jax.lax.cond(
            self._can_continue(progress, self._next_images(progress)),
            self._generate_images,
            lambda p: p,
            progress,
        )

    def _write_token(self, progress: LoopState) -> LoopState:
        rows = self._next_tokens(progress)
        return self._advance(progress, self.program.decode_token(progress.decode_state, rows), 1)

    def _generate_images(self, progress: LoopState) -> LoopState:
        rows = self._next_images(progress)
        written = self.program.generate_image(progress.decode_state, rows)
        return self._advance(progress, written, self.nfe_per_image)

    def _next_images(self, progress: LoopState) -> Bool[Array, "B"]:
        return self.program.is_image_next(progress.decode_state)

    def _next_tokens(self, progress: LoopState) -> Bool[Array, "B"]:
        return ~self.program.is_done(progress.decode_state) & ~self._next_images(progress)

    def _can_continue(self, progress: LoopState, rows: Bool[Array, "B"]) -> Bool[Array, ""]:
        return jnp.any(rows) & (progress.step < self.max_steps)

    def _advance(self, progress: LoopState, written: ar_state.DecodeState, nfe: int) -> LoopState:
        trajectory = progress.trajectory
        if trajectory is not None:
            trajectory = self._record(trajectory, progress.step, progress.decode_state)
        return LoopState(progress.step + 1, progress.nfe + nfe, written, trajectory)

    def _record(
        self, trajectory: Trajectory, step: Int[Array, ""], state: ar_state.DecodeState
    ) -> Trajectory:
        """Record the state before this step if the step is one of the `MAX_FRAMES` recorded."""
        first = MAX_FRAMES // 2
        stride = -(-self.max_steps // (first - 1))
        later = jnp.where(step % stride == 0, first + step // stride, MAX_FRAMES)
        at = jnp.where(step < first, step, later)
        at = jnp.where(step == self.max_steps, MAX_FRAMES - 1, at)

        def keep(path: Array, x: Array) -> Array:
            return path.at[at].set(x, mode="drop")

        return trajectory.replace(
            canvas=jax.tree.map(keep, trajectory.canvas, state.canvas),
            x1_hat=keep(trajectory.x1_hat, state.canvas.latents),
            run_times=keep(trajectory.run_times, step.astype(jnp.float32)),
        )

    def _finish(self, end: LoopState) -> Trajectory:
        """Add the finished document as the last frame, and convert step numbers to times."""
        trajectory = self._record(end.trajectory, jnp.int32(self.max_steps), end.decode_state)
        # The last frame was recorded as step `max_steps`; clip it to the number of steps taken.
        share = jnp.minimum(trajectory.run_times, end.step) / jnp.maximum(end.step, 1)
        return trajectory.replace(run_times=jnp.where(trajectory.run_times < 0, -1.0, share))


@dataclasses.dataclass(frozen=True)
class ARSampler:
    """Sampler of autoregressive paradigms.

    Attributes:
        token_space: token ids that may be sampled.
        image_sampler: sampler of images.
        plan: sampling plan; the sampler uses its `token_sampling` and `return_trajectory`.
    """

    token_space: token_sampling.TokenSpace
    image_sampler: ar_images.ImageSampler
    plan: SamplingPlan

    def __call__(
        self,
        network: ar_guidance.CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        prompt: Canvas,
    ) -> SampleOutput:
        """Generate the documents of a batch, with one PRNG key per row."""
        program = ar_state.DecodeProgram(
            self.token_space,
            self.image_sampler,
            self.plan.token_sampling,
            network,
            table,
            keys,
            prompt,
        )
        nfe_per_image = self.image_sampler.nfe(self.token_space.patches_per_image)
        empty = empty_trajectory(prompt, MAX_FRAMES) if self.plan.return_trajectory else None
        start = LoopState(jnp.int32(0), jnp.int32(1), program.prefill(), empty)
        end = WriteLoop(program, nfe_per_image).run(start)
        state = end.decode_state
        return SampleOutput(state.canvas, end.trajectory, end.nfe, state.truncated)
