"""Sampler of autoregressive paradigms: a KV cache, and one token or image per step.

One forward pass processes the prompt up to its first gap. Then each step writes the next token of
every row: a copy from the prompt, or a sample inside a gap. Inside a gap the sampler draws a text
token, the closing token, or `<image>` if the gap may contain images. The closing token is the token
after the gap in the prompt; after a gap at the end of the prompt, it is the end token. A row whose
next item is an image waits until every other row has reached an image or is finished. So one loop
writes tokens until no row has a token as its next item, and then one step generates all of these
images together.
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
        length = prompt.ids.shape[1]
        page = ar_state.DecodeProgram(
            self.token_space,
            self.image_sampler,
            self.plan.token_sampling,
            network,
            table,
            keys,
            prompt,
        )
        nfe_per_image = self.image_sampler.nfe(self.token_space.patches_per_image)
        max_steps = 2 * length
        stride = -(-max_steps // (MAX_FRAMES // 2 - 1))

        def can_continue(progress: LoopState, rows: Bool[Array, "B"]) -> Bool[Array, ""]:
            return jnp.any(rows) & (progress.step < max_steps)

        def next_images(progress: LoopState) -> Bool[Array, "B"]:
            return page.is_image_next(progress.decode_state)

        def next_tokens(progress: LoopState) -> Bool[Array, "B"]:
            return ~page.is_done(progress.decode_state) & ~next_images(progress)

        def advance(progress: LoopState, written: ar_state.DecodeState, nfe: int) -> LoopState:
            trajectory = progress.trajectory
            if trajectory is not None:
                before = progress.decode_state
                trajectory = _record(trajectory, progress.step, stride, before, max_steps)
            return LoopState(progress.step + 1, progress.nfe + nfe, written, trajectory)

        def write_token(progress: LoopState) -> LoopState:
            rows = next_tokens(progress)
            return advance(progress, page.decode_token(progress.decode_state, rows), 1)

        def generate_images(progress: LoopState) -> LoopState:
            rows = next_images(progress)
            written = page.generate_image(progress.decode_state, rows)
            return advance(progress, written, nfe_per_image)

        def step(progress: LoopState) -> LoopState:
            # Tokens have a loop of their own: a condition around each of them would copy the state.
            progress = jax.lax.while_loop(
                lambda p: can_continue(p, next_tokens(p)), write_token, progress
            )
            return jax.lax.cond(
                can_continue(progress, next_images(progress)),
                generate_images,
                lambda p: p,
                progress,
            )

        end = jax.lax.while_loop(
            lambda p: can_continue(p, ~page.is_done(p.decode_state)),
            step,
            LoopState(
                jnp.int32(0),
                jnp.int32(1),
                page.prefill(),
                empty_trajectory(prompt, MAX_FRAMES) if self.plan.return_trajectory else None,
            ),
        )
        trajectory = end.trajectory
        if trajectory is not None:
            trajectory = _record(
                trajectory, jnp.int32(max_steps), stride, end.decode_state, max_steps
            )
            # The last frame is the finished document, after the last step.
            share = jnp.minimum(trajectory.run_times, end.step) / jnp.maximum(end.step, 1)
            trajectory = trajectory.replace(
                run_times=jnp.where(trajectory.run_times < 0, -1.0, share)
            )
        return SampleOutput(
            end.decode_state.canvas, trajectory, end.nfe, end.decode_state.truncated
        )


def _record(
    trajectory: Trajectory,
    step: Int[Array, ""],
    stride: int,
    state: ar_state.DecodeState,
    max_steps: int,
) -> Trajectory:
    """Record this step in the trajectory if it is one of the recorded steps."""
    first = MAX_FRAMES // 2
    later = jnp.where(step % stride == 0, first + step // stride, MAX_FRAMES)
    at = jnp.where(step < first, step, later)
    at = jnp.where(step == max_steps, MAX_FRAMES - 1, at)

    def keep(path: Array, x: Array) -> Array:
        return path.at[at].set(x, mode="drop")

    return trajectory.replace(
        canvas=jax.tree.map(keep, trajectory.canvas, state.canvas),
        x1_hat=keep(trajectory.x1_hat, state.canvas.latents),
        run_times=keep(trajectory.run_times, step.astype(jnp.float32)),
    )
