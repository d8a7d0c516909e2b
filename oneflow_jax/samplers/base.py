"""Input and output types of all samplers: plan, frames and finished sample."""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas
from oneflow_jax.errors import UserError
from oneflow_jax.samplers import guidance, ode, plan_values
from oneflow_jax.samplers.token_sampling import TokenSampling
from oneflow_jax.shapes import Array, Bool, Float, Int


@plan_values.register_plan(
    arguments=("schedule", "token_sampling"),
    neutral={
        "image_guidance_scale": 1.0,
        "text_guidance_scale": 1.0,
        "confidence_threshold": 1.0,
    },
)
@dataclasses.dataclass(frozen=True)
class SamplingPlan:
    """All parameters of sampling; see `plan_values` for what a compiled program depends on.

    Attributes:
        schedule: solver and times.
        image_guidance_scale: scale of classifier-free guidance of images by text; 1 means none.
        text_guidance_scale: scale of classifier-free guidance of text by images; 1 means none.
        token_sampling: sampling parameters of tokens, for paradigms that sample tokens.
        confidence_threshold: probability above which a token of `oneflow` is final; 1 means that
            all tokens can change until the last step.

    Raises:
        UserError: there is a confidence threshold, but the solver does not renoise.
    """

    schedule: ode.SolverSchedule
    image_guidance_scale: plan_values.Number = 1.0
    text_guidance_scale: plan_values.Number = 1.0
    token_sampling: TokenSampling = dataclasses.field(default_factory=TokenSampling)
    confidence_threshold: plan_values.Number = 1.0

    def __post_init__(self) -> None:
        solver = self.schedule.solver
        if self.confidence_threshold != 1.0 and solver not in ode.RENOISING_SOLVERS:
            raise UserError(
                f"sampling.confidence_threshold={self.confidence_threshold}: "
                f"sampling.solver={solver!r} cannot keep tokens. Give a solver that renoises "
                f"({' or '.join(ode.RENOISING_SOLVERS)}), or the threshold 1.0."
            )

    @property
    def is_edit(self) -> bool:
        """Whether sampling starts at t > 0 from a finished document."""
        return self.schedule.is_edit


@flax.struct.dataclass
class Frame:
    """The documents of a batch at one step, for visualization.

    Attributes:
        canvas: canvas at this step: `ids` are the decoded tokens of text slots, `latents` are x_t.
        time: time of each slot.
        confidence: probability of each text slot's token, 0 (masked) to 1 (final).
        x1_hat: x1 prediction of each patch.
        run_time: global time: from 0 to 1, from 0 to 2 in paradigms that insert images, and the
            number of steps in autoregressive paradigms.
    """

    canvas: Canvas
    time: Float[Array, "B L"]
    confidence: Float[Array, "B L"]
    x1_hat: Float[Array, "B L C"]
    run_time: Float[Array, ""]

    def take_rows(self, rows: slice) -> "Frame":
        """Return the frame of some documents of the batch."""
        fewer = jax.tree.map(lambda x: x[rows], self.replace(run_time=None))
        return fewer.replace(run_time=self.run_time)


@flax.struct.dataclass
class Trajectory:
    """The frames of T steps; the last frame is the finished sample.

    Attributes:
        canvas: canvas of each frame, fields `[T B L ...]`.
        time: times of the slots of each frame.
        confidence: confidences of each frame.
        x1_hat: x1 predictions of each frame.
        run_times: global time of each frame.
    """

    canvas: Canvas
    time: Float[Array, "T B L"]
    confidence: Float[Array, "T B L"]
    x1_hat: Float[Array, "T B L C"]
    run_times: Float[Array, "T"]

    def take_rows(self, rows: slice) -> "Trajectory":
        """Return the trajectories of some documents of the batch."""
        fewer = jax.tree.map(lambda x: x[:, rows], self.replace(run_times=None))
        return fewer.replace(run_times=self.run_times)


@flax.struct.dataclass
class SampleOutput:
    """Finished canvases of a batch.

    Attributes:
        canvas: finished canvases.
        frame: the finished documents as the last frame of a trajectory.
        nfe: number of forward passes.
        truncated: True for rows that ran out of slots before the document was complete.
    """

    canvas: Canvas
    frame: Frame
    nfe: Int[Array, ""]
    truncated: Bool[Array, "B"]


def make_output(frame: Frame, nfe: int | Int[Array, ""]) -> SampleOutput:
    """Return the output of a sampler that adds no slots, so that no row is truncated."""
    full = jnp.zeros(frame.canvas.ids.shape[0], bool)
    return SampleOutput(canvas=frame.canvas, frame=frame, nfe=jnp.int32(nfe), truncated=full)


def finished_frame(canvas: Canvas, run_time: Float[Array, ""] | float) -> Frame:
    """Return the frame of finished documents: every slot has time 1 and confidence 1."""
    ones = jnp.ones(canvas.ids.shape)
    return Frame(canvas, ones, ones, canvas.latents, jnp.asarray(run_time, jnp.float32))


def stack_frames(frames: Sequence[Frame]) -> Trajectory:
    """Return the trajectory of these frames, which must be in host memory."""
    stacked = jax.tree.map(lambda *fields: np.stack(fields), *frames)
    return Trajectory(
        stacked.canvas, stacked.time, stacked.confidence, stacked.x1_hat, stacked.run_time
    )


def euler_nfe(plan: SamplingPlan) -> int | Int[Array, ""]:
    """Return the NFE of Euler's method; each kind of guidance adds one forward pass per step."""
    return plan_values.count_steps(plan.schedule.times) * guidance.nfe_factor(
        plan.image_guidance_scale, plan.text_guidance_scale
    )
