"""Data loader streams: each fills its own rows of every batch, independently of the others.

Each stream reads its own subset of the documents. In every batch, stream k fills the k-th block of
rows. The output and the state of a stream depend only on the RNG seed, the stream's number and the
number of streams. Any process can therefore resume the stream, in a thread or in any worker
process.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from typing import Any

import grain

from oneflow_jax.errors import UserError

StreamState = dict[str, Any] | None
"""State of a stream, serializable as JSON; None is the state at the start."""

PREFETCH = 2
"""Number of batches that are put on the devices ahead of time."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a terminal or a service manager sends to a process and all of its workers."""

PARENT_CHECK_INTERVAL_S = 1.0
"""Interval in seconds at which a worker process checks whether its parent still runs."""


def check_divisible(batch_size: int, num_streams: int) -> None:
    """Check that a batch can be divided into streams of equal size.

    Raises:
        UserError: `num_streams` does not divide `batch_size`.
    """
    if batch_size % num_streams:
        raise UserError(
            f"data.num_streams={num_streams} does not divide batch_size={batch_size}: each stream "
            "fills an equal number of rows. Choose a divisor."
        )


@dataclasses.dataclass(frozen=True)
class BatchStreams:
    """Iterable over endless batches, assembled from the streams that this process runs.

    Attributes:
        streams: the streams by number. Each element of a stream is the stream's rows of one batch.
        num_workers: number of worker processes, at most one per stream. With 0, the streams run in
            a thread of this process.
        assemble: function that assembles a batch from the rows of the streams, given as a dict by
            stream number.
    """

    streams: Mapping[int, grain.IterDataset]
    num_workers: int
    assemble: Callable[[dict[int, Any]], Any]

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self)

    def iterate(self, states: Mapping[str, StreamState]) -> grain.DatasetIterator:
        """Resume the streams from `states`; iterate over pairs (batch, states after the batch)."""
        numbers = sorted(self.streams)
        groups = min(self.num_workers, len(numbers)) or 1
        datasets: list[grain.IterDataset] = []
        for group in range(groups):
            chosen = numbers[group::groups]
            begun = [(n, self.streams[n], states[str(n)]) for n in chosen]
            datasets.append(_WithState(*zip(*begun, strict=True)))
        if self.num_workers:
            one = grain.MultiprocessingOptions(num_workers=1)
            datasets = [dataset.mp_prefetch(one, _watch_parent) for dataset in datasets]
        joined = grain.experimental.ZipIterDataset(datasets).map(self._assemble_groups)
        iterator = iter(
            grain.experimental.ThreadPrefetchIterDataset(joined, prefetch_buffer_size=PREFETCH)
        )
        if self.num_workers:
            with _block_stop_signals():
                iterator.start_prefetch()  # This starts a thread, which starts the workers.
        return iterator

    def _assemble_groups(
        self, groups: Sequence[Sequence[tuple[int, Any, StreamState]]]
    ) -> tuple[Any, dict]:
        each = [one for group in groups for one in group]
        states = {str(number): state for number, _, state in each}
        return self.assemble({number: rows for number, rows, _ in each}), states


class BatchIterator(Iterator[Any]):
    """Iterator over batches. Reading begins when the first batch is requested."""

    def __init__(self, streams: BatchStreams) -> None:
        """Start at the beginning of each stream."""
        self._streams = streams
        self._states: dict[str, StreamState] = dict.fromkeys(map(str, sorted(streams.streams)))
        self._iterator: grain.DatasetIterator | None = None

    def __next__(self) -> Any:  # noqa: ANN401 - the type that `assemble` returns
        if self._iterator is None:
            self._iterator = self._streams.iterate(self._states)
        batch, self._states = next(self._iterator)
        return batch

    @property
    def state(self) -> dict[str, StreamState]:
        """State of each stream of this process after the last batch, by stream number."""
        return self._states

    def set_state(self, state: Mapping[str, StreamState]) -> None:
        """Continue from `state`, which may include streams that this process does not run."""
        self.close()
        self._states = {number: state[number] for number in self._states}

    def close(self) -> None:
        """Stop the prefetch thread and the worker processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


class _WithState(grain.IterDataset):
    """Dataset over several streams. Each element is a list with one triple per stream.

    A triple is (stream number, next element of the stream, state of the stream after this element).

    The state is attached to each element because grain's multiprocess state also encodes prefetched
    elements and depends on the number of workers.
    """

    def __init__(
        self,
        stream_ids: Sequence[int],
        streams: Sequence[grain.IterDataset],
        states: Sequence[StreamState],
    ) -> None:
        super().__init__(streams)
        self._stream_ids, self._states = stream_ids, states

    def __iter__(self) -> "_WithStateIterator":
        iterators = [iter(stream) for stream in self._parents]
        for iterator, state in zip(iterators, self._states, strict=True):
            if state is not None:
                iterator.set_state(state)
        return _WithStateIterator(self._stream_ids, iterators)


class _WithStateIterator(grain.DatasetIterator):
    def __init__(self, stream_ids: Sequence[int], streams: Sequence[grain.DatasetIterator]) -> None:
        super().__init__(streams)
        self._stream_ids = stream_ids

    def __next__(self) -> list[tuple[int, Any, StreamState]]:
        pairs = zip(self._stream_ids, self._parents, strict=True)
        return [(number, next(stream), stream.get_state()) for number, stream in pairs]

    def _no_state(self, _state: None = None) -> dict[str, Any]:
        return {}

    # grain requires these methods, but the states are in the elements.
    get_state = set_state = _no_state


@contextlib.contextmanager
def _block_stop_signals() -> Iterator[None]:
    """Block `STOP_SIGNALS` in the threads and processes that are started in a `with` block.

    The main thread receives these signals after the end of the `with` block.
    """
    # Python starts its resource tracker together with the first process, and the start of the
    # tracker unblocks the signals. So start the tracker before the signals are blocked.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch_parent(worker_index: int, num_workers: int) -> None:
    """Make this worker process end when its parent ends or sends SIGTERM to the worker.

    The worker ignores `STOP_SIGNALS` from all other processes, because the training process first
    saves a checkpoint and then stops its workers.
    """
    del worker_index, num_workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process().pid
    while os.getppid() == parent:
        received = signal.sigtimedwait(STOP_SIGNALS, PARENT_CHECK_INTERVAL_S)
        if received and (received.si_signo, received.si_pid) == (signal.SIGTERM, parent):
            break
    os._exit(1)
