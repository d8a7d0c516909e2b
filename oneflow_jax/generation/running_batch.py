"""A batch of documents, while it is sampled and when it is finished."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from oneflow_jax.canvas import Canvas
from oneflow_jax.data.document import Document
from oneflow_jax.generation.system import GenerativeSystem
from oneflow_jax.runtime import distributed, programs, sharding
from oneflow_jax.samplers import steps
from oneflow_jax.samplers.base import Frame, Trajectory, stack_frames
from oneflow_jax.samplers.steps import Progress
from oneflow_jax.shapes import PyTree


@dataclasses.dataclass(frozen=True)
class GeneratedBatch:
    """A batch of finished documents.

    Attributes:
        documents: the documents, without gaps.
        canvas: the slots of the documents, in host memory.
        trajectory: the sampling steps, in host memory; None if they were not recorded.
        nfe: number of forward passes of the batch.
        truncated: for each document, True if the sampler dropped an insertion because the canvas
            was full.
    """

    documents: list[Document]
    canvas: Canvas
    trajectory: Trajectory | None
    nfe: int
    truncated: list[bool]


class RunningBatch:
    """A batch of documents that is being sampled, on the devices; `Generator.start` creates it.

    Attributes:
        num_steps: number of steps; the maximum if the documents determine it.
        frame_steps: numbers of the steps before which a trajectory has a frame.
    """

    def __init__(
        self,
        system: GenerativeSystem,
        sampler_programs: programs.SamplerPrograms,
        inputs: PyTree,
        count: int,
    ) -> None:
        """Start the batch.

        Args:
            system: the model's parts.
            sampler_programs: programs for the inputs.
            inputs: arguments of `make_sampler`, on the devices.
            count: number of documents; the other rows are padding.
        """
        self._system = system
        self._programs = sampler_programs
        self._inputs = inputs
        self._count = count
        self._progress: Progress = self._call("start")
        self.num_steps = int(distributed.to_host(self._progress.num_steps))
        self.frame_steps = steps.frame_steps(self.num_steps, self._progress.max_frames)

    @property
    def end_time(self) -> float:
        """Global time of finished documents, at most (`Frame.run_time`)."""
        return self._progress.end_time

    @property
    def is_done(self) -> bool:
        """Whether no step is left; waits for the steps that were started."""
        return bool(distributed.to_host(self._progress.is_done))

    def advance(self, stop: int) -> None:
        """Start the steps until `stop` steps are taken in all; do not wait for them."""
        self._progress = self._call("advance", self._progress, np.int32(stop))

    def start_frame(self) -> Frame:
        """Start the computation of the documents before the next step, and return its result."""
        return self._call("frame", self._progress)

    def read_frame(self, frame: Frame) -> Frame:
        """Copy a frame to host memory, without the rows of padding."""
        return distributed.to_host(frame).take_rows(slice(self._count))

    def finish(self, frames: Sequence[Frame] | None = None) -> GeneratedBatch:
        """Return the finished documents.

        Args:
            frames: earlier frames, in host memory; None for a batch without a trajectory.
        """
        sample = distributed.to_host(self._call("finish", self._progress))
        canvas = jax.tree.map(lambda x: x[: self._count], sample.canvas)
        trajectory = None
        if frames is not None:
            trajectory = stack_frames([*frames, sample.frame.take_rows(slice(self._count))])
        documents, cut = self._system.layout.decode(canvas), sample.truncated[: self._count]
        return GeneratedBatch(documents, canvas, trajectory, int(sample.nfe), cut.tolist())

    def record_frames(self) -> list[Frame]:
        """Take all steps, and return the frames before those in `frame_steps`, in host memory."""
        frames = []
        for _, stop in itertools.pairwise((*self.frame_steps, self.num_steps)):
            if self.is_done:
                break
            frame = self.start_frame()
            self.advance(stop)
            frames.append(self.read_frame(frame))
        return frames

    def is_compiled(self, name: str) -> bool:
        """Return whether a program of the sampler, such as "advance", is in memory."""
        return name in self._programs.used

    def _call(self, name: str, *arguments: PyTree) -> PyTree:
        with sharding.mesh_context(self._system.mesh, sharding.SAMPLING_RULES):
            result = getattr(self._programs, name)(self._inputs, *arguments)
        self._programs.used.add(name)
        return result
