"""Streams: the independent parts that batches are made of.

Each reads a share of the documents of its own and fills the same rows of every batch. What it
yields depends on the seed, its number and how many there are; and so does its state, so that any
process may go on with it, in a thread or in whichever worker.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain

from oneflow_jax.errors import UserError

StreamState = dict[str, Any] | None
"""Where a stream stands, in values that JSON has; None is the beginning."""

PREFETCH = 2
"""Batches that are on the devices before they are asked for."""


def check_divisible(batch_size: int, num_streams: int) -> None:
    """Refuses a batch that does not cut into streams.

    Raises:
        UserError: as said.
    """
    if batch_size % num_streams:
        raise UserError(
            f"data.streams={num_streams} does not divide batch={batch_size}: each stream fills the "
            "same "
            "number of its rows."
        )


@dataclasses.dataclass(frozen=True)
class BatchStreams:
    """Endless batches, of the streams that this process runs.

    Attributes:
        streams: by number; each yields its rows of the next batch.
        workers: processes to run them in, at most one a stream; 0 is a thread of this one.
        place: makes a batch of what the streams yield, by number.
    """

    streams: Mapping[int, grain.IterDataset]
    workers: int
    place: Callable[[dict[int, Any]], Any]

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self)

    def opened(self, states: Mapping[str, StreamState]) -> grain.DatasetIterator:
        """Goes on from these states; yields each batch with the states after it."""
        numbers = sorted(self.streams)
        groups = min(self.workers, len(numbers)) or 1
        told: list[grain.IterDataset] = []
        for group in range(groups):
            chosen = numbers[group::groups]
            begun = [(n, self.streams[n], states[str(n)]) for n in chosen]
            told.append(_WithState(*zip(*begun, strict=True)))
        if self.workers:
            one = grain.MultiprocessingOptions(num_workers=1)
            told = [dataset.mp_prefetch(one) for dataset in told]
        joined = grain.experimental.ZipIterDataset(told).map(self._assemble_groups)
        return iter(
            grain.experimental.ThreadPrefetchIterDataset(joined, prefetch_buffer_size=PREFETCH)
        )

    def _assemble_groups(
        self, groups: Sequence[Sequence[tuple[int, Any, StreamState]]]
    ) -> tuple[Any, dict]:
        each = [one for group in groups for one in group]
        states = {str(number): state for number, _, state in each}
        return self.place({number: rows for number, rows, _ in each}), states


class BatchIterator(Iterator[Any]):
    """Batches one after another; nothing is read before the first is asked for."""

    def __init__(self, batches: BatchStreams) -> None:
        """Begins at the beginning of each stream."""
        self._batches = batches
        self._states: dict[str, StreamState] = dict.fromkeys(map(str, sorted(batches.streams)))
        self._opened: grain.DatasetIterator | None = None

    def __next__(self) -> Any:  # noqa: ANN401 - whatever `place` makes
        if self._opened is None:
            self._opened = self._batches.opened(self._states)
        batch, self._states = next(self._opened)
        return batch

    @property
    def position(self) -> dict[str, StreamState]:
        """Where each stream that this process runs stands after the last batch, by number."""
        return self._states

    def seek(self, position: Mapping[str, StreamState]) -> None:
        """Goes on from there; `position` may be of more streams than this process runs."""
        self.close()
        self._states = {number: position[number] for number in self._states}

    def close(self) -> None:
        """Ends threads and workers."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


class _WithState(grain.IterDataset):
    """Of each of some streams its number, its next element and its state after it.

    The state travels with the element. Grain's own state of datasets that run in workers tells
    besides what these have made ahead, and is another for each number of workers.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        streams: Sequence[grain.IterDataset],
        states: Sequence[StreamState],
    ) -> None:
        super().__init__(streams)
        self._numbers, self._states = numbers, states

    def __iter__(self) -> "_WithStateIterator":
        iterators = [iter(stream) for stream in self._parents]
        for iterator, state in zip(iterators, self._states, strict=True):
            if state is not None:
                iterator.set_state(state)
        return _WithStateIterator(self._numbers, iterators)


class _WithStateIterator(grain.DatasetIterator):
    def __init__(self, numbers: Sequence[int], streams: Sequence[grain.DatasetIterator]) -> None:
        super().__init__(streams)
        self._numbers = numbers

    def __next__(self) -> list[tuple[int, Any, StreamState]]:
        pairs = zip(self._numbers, self._parents, strict=True)
        return [(number, next(stream), stream.get_state()) for number, stream in pairs]

    def _stateless(self, _state: None = None) -> dict[str, Any]:
        return {}

    get_state = set_state = _stateless  # Grain wants them; the states are in the elements.
