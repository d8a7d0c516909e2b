"""A batch of calls that runs step by step; `Model.start_batch` creates it."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence

from oneflow_jax.api import state as states
from oneflow_jax.api.call import Call
from oneflow_jax.api.document import Document, EditResult, to_public
from oneflow_jax.api.state import SamplingStep
from oneflow_jax.data import prompt_rows
from oneflow_jax.generation.generator import Generator
from oneflow_jax.generation.running_batch import GeneratedBatch
from oneflow_jax.runtime import padding
from oneflow_jax.samplers.base import Trajectory, stack_frames
from oneflow_jax.viewer import from_samples, trajectory


@dataclasses.dataclass(frozen=True)
class CallResult:
    """The result of one call of a batch.

    Attributes:
        documents: the finished documents; of an edit, one `EditResult`.
        nfe: number of forward passes of the batch.
        frames: the finished documents, as the viewer draws them; [] if they are not needed.
    """

    documents: Sequence[Document]
    nfe: int
    frames: Sequence[trajectory.Frame]

    @property
    def last_steps(self) -> list[SamplingStep]:
        """The finished documents as the last sampling steps."""
        pairs = zip(self.frames, self.documents, strict=True)
        return [states.from_frame(frame, document) for frame, document in pairs]


class BatchRun:
    """Calls with equal plans and row lengths, which run as one batch.

    Attributes:
        step: number of steps so far.
        num_steps: number of steps; the maximum if the documents determine it.
    """

    def __init__(self, generator: Generator, calls: Sequence[Call], max_rows: int) -> None:
        """Start the batch, whose calls must have equal values of `Call.batch_key`."""
        self._layout = generator.system.layout
        self._calls = calls
        stops = itertools.accumulate((call.num_documents for call in calls), initial=0)
        self._rows = [slice(*ends) for ends in itertools.pairwise(stops)]
        each = [(call, n) for call in calls for n in range(call.num_documents)]
        self._running = generator.start(
            [call.documents[n] for call, n in each],
            calls[0].plan,
            seeds=[call.seed for call, _ in each],
            noise_ids=[n for _, n in each],
            batch=padding.padded_batch_size(generator.system.mesh, len(each), max_rows),
        )
        self.step = 0
        self.num_steps = self._running.num_steps
        self._stops = [*self._running.frame_steps[1:], self.num_steps]

    def needs_compilation(self, *, shows_states: bool) -> bool:
        """Return whether the next step has to compile a program, or load it from the disk."""
        names = ("advance", "frame") if shows_states else ("advance",)
        return not all(map(self._running.is_compiled, names))

    @property
    def is_done(self) -> bool:
        """Whether the documents are finished; waits for the steps that were started."""
        return self._running.is_done

    def advance(
        self, shown: Collection[int] = (), num_steps: int = 1
    ) -> Mapping[int, list[SamplingStep]]:
        """Take the next steps, up to a step before which a trajectory has a frame.

        Args:
            shown: indices of the calls whose documents are returned.
            num_steps: minimum number of steps to take; fewer if fewer are left.

        Returns:
            The documents of each call in `shown` before these steps.
        """
        frame = self._running.start_frame() if shown else None
        least = min(self.step + num_steps, self.num_steps)
        self.step = next(stop for stop in self._stops if stop >= least)
        self._running.advance(self.step)
        if frame is None:
            return {}
        path = stack_frames([self._running.read_frame(frame)])
        return {
            n: [
                states.from_frame(x)
                for x in self._build_last_frames(path, n, self._running.end_time)
            ]
            for n in shown
        }

    def results(self, *, shows_states: bool = False) -> list[CallResult]:
        """Return the finished documents of each call; with `shows_states`, also their frames."""
        batch = self._running.finish([])
        results = []
        for n, (call, rows) in enumerate(zip(self._calls, self._rows, strict=True)):
            documents = [self._to_public(call, batch, n) for n in range(rows.start, rows.stop)]
            frames = self._build_last_frames(batch.trajectory, n) if shows_states else []
            results.append(CallResult(documents, batch.nfe, frames))
        return results

    def _build_last_frames(
        self, path: Trajectory, index: int, end_time: float | None = None
    ) -> list[trajectory.Frame]:
        """Return the documents of a call in the last frame of a trajectory."""
        names = [""] * self._calls[index].num_documents
        path = path.take_rows(self._rows[index])
        views = from_samples.build_views(self._layout, path, names, names, end_time)
        return [view.frames[-1] for view in views]

    def _to_public(self, call: Call, batch: GeneratedBatch, row: int) -> Document:
        after, cut = batch.documents[row], batch.truncated[row]
        if not call.plan.is_edit:
            return Document(to_public(after.parts), batch.nfe, cut)
        changes = prompt_rows.diff_documents(self._layout, call.documents[0], after)
        return EditResult(to_public(after.parts), batch.nfe, cut, tuple(changes))
