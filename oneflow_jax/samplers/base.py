"""Input and output types of all samplers: plan, trajectory and finished sample."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.samplers import guidance, ode, plan_values
from oneflow_jax.samplers.token_sampling import TokenSampling
from oneflow_jax.shapes import Array, Bool, Float, Int


@plan_values.register_plan(
    arguments=("schedule", "token_sampling"),
    neutral={"image_guidance_scale": 1.0, "text_guidance_scale": 1.0},
)
@dataclasses.dataclass(frozen=True)
class SamplingPlan:
    """All parameters of sampling; see `plan_values` for what a compiled program depends on.

    Attributes:
        schedule: solver and times.
        image_guidance_scale: scale of classifier-free guidance of images by text; 1 means none.
        text_guidance_scale: scale of classifier-free guidance of text by images; 1 means none.
        token_sampling: sampling parameters of tokens, for paradigms that sample tokens.
        return_trajectory: whether to return the trajectory.
    """

    schedule: ode.SolverSchedule
    image_guidance_scale: plan_values.Number = 1.0
    text_guidance_scale: plan_values.Number = 1.0
    token_sampling: TokenSampling = dataclasses.field(default_factory=TokenSampling)
    return_trajectory: bool = False

    @property
    def is_edit(self) -> bool:
        """Whether sampling starts at t > 0 from a finished document."""
        return self.schedule.is_edit


@flax.struct.dataclass
class Trajectory:
    """A sample at T steps, for visualization; the last frame is the finished sample.

    Attributes:
        canvas: canvas at each step, fields `[T B L ...]`: `ids` are the decoded tokens of text
            slots, `latents` are x_t.
        time: time of each slot.
        confidence: probability of each text slot's token, 0 (masked) to 1 (final).
        x1_hat: x1 prediction of each patch.
        run_times: global time of each frame: from 0 to 1, or from 0 to 2 in paradigms that insert
            images; negative for unused frames.
    """

    canvas: Canvas
    time: Float[Array, "T B L"]
    confidence: Float[Array, "T B L"]
    x1_hat: Float[Array, "T B L C"]
    run_times: Float[Array, "T"]


@flax.struct.dataclass
class SampleOutput:
    """Finished canvases of a batch.

    Attributes:
        canvas: finished canvases.
        trajectory: the sampling steps; None if the plan does not ask for them.
        nfe: number of forward passes.
        truncated: True for rows that ran out of slots before the document was complete.
    """

    canvas: Canvas
    trajectory: Trajectory | None
    nfe: Int[Array, ""]
    truncated: Bool[Array, "B"]


def make_output(canvas: Canvas, trajectory: Trajectory | None, nfe: int) -> SampleOutput:
    """Return the output of a sampler that adds no slots, so that no row is truncated."""
    full = jnp.zeros(canvas.ids.shape[0], bool)
    return SampleOutput(canvas=canvas, trajectory=trajectory, nfe=jnp.int32(nfe), truncated=full)


def empty_trajectory(canvas: Canvas, num_frames: int) -> Trajectory:
    """Allocate a trajectory of `num_frames` unused frames."""
    path = jax.tree.map(lambda x: jnp.zeros((num_frames, *x.shape), x.dtype), canvas)
    return Trajectory(
        canvas=path,
        time=jnp.ones(path.ids.shape),
        confidence=jnp.ones(path.ids.shape),
        x1_hat=path.latents,
        run_times=jnp.full(num_frames, -1.0),
    )


def euler_nfe(plan: SamplingPlan) -> int:
    """Return the NFE of Euler's method; each kind of guidance adds one forward pass per step."""
    return len(plan.schedule.times) * guidance.nfe_factor(
        plan.image_guidance_scale, plan.text_guidance_scale
    )
