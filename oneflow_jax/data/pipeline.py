"""From documents to batches on devices, by grain: shuffle, lay out, pack, batch, prefetch.

Or, for what learns from pictures alone, a picture of each document.

A batch is made of `streams`: stream k of S reads every S-th document, from the k-th on, and fills
rows k B/S to (k+1) B/S. A process runs those whose rows lie on its devices, so that batches are the
same whatever the number of processes. The streams' state is saved with each checkpoint and brings
back the very next batch, also in the middle of an epoch.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np

from oneflow_jax.canvas import Canvas, Kind
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import streams as streaming
from oneflow_jax.data.document import Document
from oneflow_jax.errors import UserError
from oneflow_jax.shapes import PyTree, UInt8

BINS = 64
"""Rows that are packed together: more leave fewer slots empty, and make a resume slower."""

READING = grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
"""Documents read ahead. grain looks at all of them for each that it hands on, so that its default
of 500 costs more than to read a small document."""


def batches(
    source: Sequence[Document],
    layout: layouts.Layout,
    *,
    rows: int,
    streams: int = 1,
    seed: int,
    workers: int,
    cache: int = 0,
    sharding: jax.sharding.Sharding,
) -> streaming.Batches:
    """Endless batches of packed rows, `Canvas`, in an order drawn anew each epoch.

    Args:
        source: random access to documents; picklable if there are workers.
        layout: how a document becomes slots.
        rows: of the global batch, B.
        streams: independent parts of the batch, S, a divisor of B. With fewer than processes, some
            of these read the same documents and take different rows of theirs.
        seed: of the order.
        workers: processes that lay out and pack, at most one a stream; 0 does it in a thread of
            this one.
        cache: how many documents, laid out, each process may keep in memory.
        sharding: where the rows go.
    """
    documents = _shuffled(_Cached(source, layout.row, cache), seed)

    def stream(number: int) -> grain.IterDataset[Canvas]:
        packed = grain.experimental.FirstFitPackIterDataset(
            documents[number::streams].to_iter_dataset(READING),
            length_struct=dict.fromkeys(
                ("ids", "latents", "kind", "span", "position", "fixed", "opening"), layout.length
            ),
            num_packing_bins=BINS,
            seed=seed,
        )
        return packed.map(_canvas).batch(rows // streams, drop_remainder=True)

    return _of_streams(stream, _Share((rows, layout.length), streams, sharding), workers)


def pictures(
    source: Sequence[Document],
    *,
    pixels: int,
    rows: int,
    streams: int = 1,
    seed: int,
    workers: int,
    cache: int = 0,
    sharding: jax.sharding.Sharding,
) -> streaming.Batches:
    """Endless batches of pictures, uint8 `[B pixels pixels 3]`; the other arguments as above.

    Each document that has pictures shows one of them, drawn anew each time.

    Args:
        source: random access to documents; picklable if there are workers.
        pixels: height and width of all pictures.
        rows: pictures of the global batch, B.
        streams: independent parts of the batch.
        seed: of the order.
        workers: processes that read; 0 does it in a thread of this one.
        cache: how many documents' pictures each process may keep in memory.
        sharding: where the pictures go.

    Raises:
        UserError: a picture has another size, when it comes.
    """
    read = functools.partial(sized, pixels)
    # Drawn by the place among all documents: streams would else all draw the same numbers.
    shown = _shuffled(_Cached(source, read, cache), seed).random_map(_one_of)

    def stream(number: int) -> grain.IterDataset[UInt8[np.ndarray, "n pixels pixels 3"]]:
        mine = shown[number::streams].to_iter_dataset(READING)
        return mine.batch(rows // streams, drop_remainder=True)

    return _of_streams(stream, _Share((rows, pixels), streams, sharding), workers)


def sized(pixels: int, document: Document) -> tuple[UInt8[np.ndarray, "pixels pixels 3"], ...]:
    """The pictures of a document, all of them `pixels` high and wide.

    Raises:
        UserError: one is not.
    """
    found = document.pictures()
    for picture in found:
        if picture.shape != (pixels, pixels, 3):
            raise UserError(
                f"A picture of shape {picture.shape} in the data set; data.pixels={pixels} wants "
                f"{(pixels, pixels, 3)}: set it, or the size in the data set's own settings."
            )
    return found


def _shuffled(documents: Sequence[Any], seed: int) -> grain.MapDataset:
    """Endlessly, each epoch in another order."""
    return grain.MapDataset.source(documents).seed(seed).shuffle().repeat()


def _of_streams(
    stream: Callable[[int], grain.IterDataset], share: "_Share", workers: int
) -> streaming.Batches:
    """Batches of this process's streams, which `stream` makes by number."""
    mine = {number: stream(number) for number in share.numbers()}
    return streaming.Batches(mine, workers, share.placed)


@dataclasses.dataclass(frozen=True)
class _Share:
    """What this process holds of a batch, of this many rows and slots, cut into `streams`."""

    shape: tuple[int, int]
    streams: int
    sharding: jax.sharding.Sharding

    def numbers(self) -> list[int]:
        """The streams that have rows, some at least, on this process's devices."""
        rows, _ = self.shape
        each = rows // self.streams
        held = self.sharding.addressable_devices_indices_map(self.shape).values()
        return sorted({row // each for where, _ in held for row in range(rows)[where]})

    def placed(self, pieces: Mapping[int, PyTree]) -> PyTree:
        """The batch on the devices, of the rows of each of these streams."""
        numbers = sorted(pieces)
        return jax.tree.map(
            lambda *found: self._on_devices(numbers, np.concatenate(found)),
            *[pieces[number] for number in numbers],
        )

    def _on_devices(self, numbers: list[int], values: np.ndarray) -> jax.Array:
        """Puts rows where they belong; `values` has those of the streams with these numbers."""
        rows, _ = self.shape
        each = rows // self.streams

        def chosen(index: tuple[slice, ...]) -> np.ndarray:
            # A device's rows lie together, and so do the streams that have them.
            start, stop, _ = index[0].indices(rows)
            first = numbers.index(start // each) * each + start % each
            return values[first : first + stop - start, *index[1:]]

        shape = (rows, *values.shape[1:])
        return jax.make_array_from_callback(shape, self.sharding, chosen)


class _Cached:
    """What is made of the documents of a source; the first `cache` that are asked for are kept.

    To read and lay out a small picture takes longer than a small model takes to learn from it.
    """

    def __init__(
        self, source: Sequence[Document], make: Callable[[Document], Any], cache: int
    ) -> None:
        self._source, self._make, self._cache = source, make, cache
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - whatever is made
        made = self._kept.get(index)
        if made is None:
            made = self._make(self._source[index])
            if len(self._kept) < self._cache:
                self._kept[index] = made
        return made


def _one_of(found: tuple[np.ndarray, ...], rng: np.random.Generator) -> np.ndarray | None:
    # grain leaves out what is None.
    return found[rng.integers(len(found))] if found else None


def _canvas(packed: dict[str, np.ndarray]) -> Canvas:
    """One packed row; its span numbers, which began anew with each document, run through."""
    kind, segment = packed["kind"], packed["kind_segment_ids"]
    changes = np.diff(packed["span"], prepend=0) != 0
    span = np.where(kind != Kind.PAD, np.cumsum(changes), 0)
    return Canvas(
        ids=packed["ids"],
        latents=packed["latents"],
        kind=kind,
        segment=segment.astype(np.int32),
        span=span.astype(np.int32),
        position=packed["position"],
        fixed=packed["fixed"],
        opening=packed["opening"],
    )
