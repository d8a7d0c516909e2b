"""Samplers that run step by step: start a batch, advance it by any number of steps, finish it.

Each of the three is a program of its own. The number of steps by which `advance` moves is an
argument, so one program samples a whole batch in one call, and also stops before any step: to show
the documents, or because no client waits for them any more.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.samplers.base import Frame, SampleOutput
from oneflow_jax.shapes import Array, Bool, Int, PyTree


@flax.struct.dataclass
class Progress:
    """A batch after some steps of a sampler.

    Attributes:
        step: number of steps so far.
        is_done: whether no step is left.
        num_steps: number of steps; the maximum if the documents determine it.
        state: what the sampler carries from step to step.
        max_frames: maximum number of frames of a trajectory; None for a frame of each step.
        end_time: global time of finished documents (`Frame.run_time`), at most.
    """

    step: Int[Array, ""]
    is_done: Bool[Array, ""]
    num_steps: Int[Array, ""]
    state: PyTree
    max_frames: int | None = flax.struct.field(pytree_node=False, default=None)
    end_time: float = flax.struct.field(pytree_node=False, default=1.0)


class Sampler(Protocol):
    """A sampler with its network, prompts, keys and plan."""

    @property
    def num_steps(self) -> Int[Array, ""] | int:
        """Number of steps; the maximum if the documents determine it."""

    def start(self) -> Progress:
        """Return the batch before its first step."""

    def advance(self, progress: Progress, stop: Int[Array, ""] | int) -> Progress:
        """Take steps until `stop` steps are taken in all, or no step is left."""

    def frame(self, progress: Progress) -> Frame:
        """Return the documents before the next step, with the prediction of this step."""

    def finish(self, progress: Progress) -> SampleOutput:
        """Return the finished documents; no step must be left."""


def sample(sampler: Sampler) -> SampleOutput:
    """Take all steps of a sampler in one program."""
    return sampler.finish(sampler.advance(sampler.start(), sampler.num_steps))


def frame_steps(num_steps: int, max_frames: int | None) -> list[int]:
    """Return the numbers of the steps before which a trajectory has a frame.

    These are all steps, or at most `max_frames`: half of them the first steps, and the others
    evenly spaced.
    """
    if max_frames is None or num_steps <= max_frames:
        return list(range(num_steps))
    first = max_frames // 2
    stride = -(-num_steps // (first - 1))
    return [*range(first), *range(-(-first // stride) * stride, num_steps, stride)]


@dataclasses.dataclass(frozen=True, eq=False)
class StepSampler:
    """A sampler whose steps are calls of one function.

    Attributes:
        num_steps: number of steps; the maximum if `is_active` ends some batches earlier.
        init: function that returns the state before the first step.
        step: function from the number of a step, counted from 0, and the state before the step to
            the state after it.
        make_frame: function from the number of the next step and the state to the documents.
        make_output: function from the number of steps and the last state to the finished documents.
        is_active: function from the number of the next step and the state to whether the step is
            needed; None if all steps are.
        last_in_output: whether `make_output` takes the last step, and `step` only those before.
        end_time: global time of finished documents, at most.
    """

    num_steps: Int[Array, ""] | int
    init: Callable[[], PyTree]
    step: Callable[[Int[Array, ""], PyTree], PyTree]
    make_frame: Callable[[Int[Array, ""], PyTree], Frame]
    make_output: Callable[[Int[Array, ""], PyTree], SampleOutput]
    is_active: Callable[[Int[Array, ""], PyTree], Bool[Array, ""]] | None = None
    last_in_output: bool = False
    end_time: float = 1.0

    def start(self) -> Progress:
        """Return the batch before its first step."""
        state = self.init()
        return Progress(
            step=jnp.int32(0),
            is_done=~self._is_active(jnp.int32(0), state),
            num_steps=jnp.int32(self.num_steps),
            state=state,
            end_time=self.end_time,
        )

    def advance(self, progress: Progress, stop: Int[Array, ""] | int) -> Progress:
        """Take steps until `stop` steps are taken in all, or no step is left."""
        moves = self.num_steps - self.last_in_output
        is_constant = isinstance(stop, int) and isinstance(moves, int)
        # XLA knows the number of iterations of a loop whose condition compares with a constant.
        end = min(stop, moves) if is_constant else jnp.minimum(stop, moves)

        def can_continue(at: tuple[Int[Array, ""], PyTree]) -> Bool[Array, ""]:
            return at[0] < end if self.is_active is None else (at[0] < end) & self.is_active(*at)

        step, state = progress.step, progress.state
        if not is_constant or end > 0:  # A loop without iterations would still be compiled.
            step, state = jax.lax.while_loop(
                can_continue, lambda at: (at[0] + 1, self.step(*at)), (step, state)
            )
        if self.last_in_output:
            step = jnp.where(stop > moves, self.num_steps, step)
        return progress.replace(step=step, is_done=~self._is_active(step, state), state=state)

    def frame(self, progress: Progress) -> Frame:
        """Return the documents before the next step, with the prediction of this step."""
        return self.make_frame(progress.step, progress.state)

    def finish(self, progress: Progress) -> SampleOutput:
        """Return the finished documents; no step must be left."""
        return self.make_output(progress.step, progress.state)

    def _is_active(self, step: Int[Array, ""], state: PyTree) -> Bool[Array, ""]:
        left = step < self.num_steps
        return left if self.is_active is None else left & self.is_active(step, state)
