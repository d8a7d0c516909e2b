"""A batch of calls that runs step by step; `Model.start_batch` creates it."""

from collections.abc import Sequence

from oneflow_jax import generate as generation
from oneflow_jax.api import state as states
from oneflow_jax.api.call import Call
from oneflow_jax.api.document import Document, EditResult, to_public
from oneflow_jax.api.state import SamplingStep
from oneflow_jax.viewer import from_samples


class BatchRun:
    """Calls with equal plans and row lengths, which run as one batch.

    Attributes:
        step: number of steps so far.
        num_steps: number of steps; the maximum if the documents determine it.
    """

    def __init__(
        self, generator: generation.Generator, calls: Sequence[Call], max_rows: int
    ) -> None:
        """Prepare the batch, whose calls must have equal values of `Call.batch_key`."""
        self._generator = generator
        self._calls = calls
        self._max_rows = max_rows
        self._batch: generation.GeneratedBatch | None = None
        self.step = 0
        self.num_steps = calls[0].num_steps

    @property
    def is_done(self) -> bool:
        """Whether the documents are finished."""
        return self.step == self.num_steps

    @property
    def is_new(self) -> bool:
        """Whether the next step compiles a program, or loads it from the disk."""
        return False

    @property
    def nfe(self) -> int:
        """Number of forward passes of the batch so far."""
        return self._batch.nfe if self._batch else 0

    def advance(self) -> None:
        """Run one step."""
        if self._batch is None:
            rows = [call.document for call in self._calls for _ in range(call.num_documents)]
            ids = [n for call in self._calls for n in range(call.num_documents)]
            seeds = [call.seed for call in self._calls for _ in range(call.num_documents)]
            size = generation.padded_batch_size(
                self._generator.system.mesh, len(rows), self._max_rows
            )
            (self._batch,) = self._generator(
                rows, self._calls[0].plan, seed=seeds, batch=size, noise_ids=ids
            )
        self.step += 1

    def states(self, index: int) -> list[SamplingStep]:
        """Return the documents of a call before the next step."""
        if self._batch is None:
            return []
        layout = self._generator.system.layout
        count = len(self._batch.documents)
        views = from_samples.build_views(layout, self._batch.trajectory, [""] * count, [""] * count)
        return [states.from_frame(view.frames[self.step]) for view in views[self._rows(index)]]

    def results(self) -> list[list[Document]]:
        """Return the finished documents of each call; of an edit, an `EditResult`."""
        return [self._to_documents(n) for n in range(len(self._calls))]

    def _rows(self, index: int) -> slice:
        first = sum(call.num_documents for call in self._calls[:index])
        return slice(first, first + self._calls[index].num_documents)

    def _to_documents(self, index: int) -> list[Document]:
        call, rows, batch = self._calls[index], self._rows(index), self._batch
        pairs = zip(batch.documents[rows], batch.truncated[rows], strict=True)
        if not call.plan.is_edit:
            return [Document(to_public(x.parts), batch.nfe, cut) for x, cut in pairs]
        layout = self._generator.system.layout
        return [
            EditResult(
                to_public(after.parts),
                batch.nfe,
                cut,
                tuple(generation.diff_documents(layout, call.document, after)),
            )
            for after, cut in pairs
        ]
