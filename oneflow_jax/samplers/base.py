"""What all samplers take and return: plan, trajectory and finished sample."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.samplers import guidance, ode, token_sampling
from oneflow_jax.shapes import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class SamplingPlan:
    """How to sample; hashable, so static under jit.

    Attributes:
        schedule: solver and times.
        guidance: scale of classifier-free guidance of pictures by words; 1 is none.
        text_guidance: of words by pictures.
        words: how tokens are drawn, where they are drawn.
        record: whether to return the moments on the way.
    """

    schedule: ode.SolverSchedule
    guidance: float = 1.0
    text_guidance: float = 1.0
    words: token_sampling.TokenSampling = dataclasses.field(
        default_factory=token_sampling.TokenSampling
    )
    record: bool = False

    @property
    def revises(self) -> bool:
        """Whether what is made starts late, from a finished document."""
        return self.schedule.times[0] > 0


@flax.struct.dataclass
class Trajectory:
    """A sample on its way, for people to look at: T moments, the last of them the finished sample.

    Attributes:
        canvas: as it stood, fields `[T B L ...]`: `ids` are what text slots read as, `latents` x_t.
        clock: each slot's own time.
        certainty: of each text slot's token, 0 (hidden) to 1 (settled).
        guess: the clean patch that the network believes in.
        times: the time of the run as a whole, 0 to 1, or up to 2 where pictures are born; below 0
            for moments that never came.
    """

    canvas: Canvas
    clock: Float[Array, "T B L"]
    certainty: Float[Array, "T B L"]
    guess: Float[Array, "T B L C"]
    times: Float[Array, "T"]


@flax.struct.dataclass
class SampleOutput:
    """Finished canvases, and how they came about if that was asked for.

    Attributes:
        canvas: finished.
        moments: on the way.
        passes: forward passes that it took, NFE.
        full: True for rows in which there was no room for something that was to be inserted.
    """

    canvas: Canvas
    moments: Trajectory | None
    passes: Int[Array, ""]
    full: Bool[Array, "B"]


def make_output(canvas: Canvas, trajectory: Trajectory | None, nfe: int) -> SampleOutput:
    """A sample of as many passes as planned, on a canvas that cannot overflow."""
    full = jnp.zeros(canvas.ids.shape[0], bool)
    return SampleOutput(canvas=canvas, moments=trajectory, passes=jnp.int32(nfe), full=full)


def empty_trajectory(canvas: Canvas, num_frames: int) -> Trajectory:
    """Room for `num_frames` moments of a batch that have not come yet."""
    path = jax.tree.map(lambda x: jnp.zeros((num_frames, *x.shape), x.dtype), canvas)
    return Trajectory(
        canvas=path,
        clock=jnp.ones(path.ids.shape),
        certainty=jnp.ones(path.ids.shape),
        guess=path.latents,
        times=jnp.full(num_frames, -1.0),
    )


def euler_nfe(plan: SamplingPlan) -> int:
    """NFE of Euler's method; each kind of guidance asks the network once more."""
    return len(plan.schedule.times) * guidance.nfe_factor(plan.guidance, plan.text_guidance)
