"""Input pipeline with grain: shuffle, lay out, pack and batch documents, and prefetch to devices.

Autoencoders, which learn from images alone, get batches of one image per document instead.

The B rows of a batch are divided among S streams. Stream k reads every S-th document, starting
with document k, and fills the B/S rows from row k B/S on. A process runs the streams whose rows are
on its devices. Batches therefore do not depend on the number of processes. Each checkpoint has the
state of the streams. So a restored run continues with exactly the next batch, even in the middle of
an epoch.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import streams as streaming
from oneflow_jax.data.document import Document
from oneflow_jax.errors import UserError
from oneflow_jax.shapes import PyTree, UInt8

PACKING_BINS = 64
"""Number of rows that are open for packing at a time. With more rows, fewer slots stay empty, but
resuming is slower."""

READ_OPTIONS = grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
"""Number of documents to read ahead. For each element, grain iterates over the whole buffer. With
grain's default of 500, this iteration would cost more than reading a small document."""


def canvas_batches(
    source: Sequence[Document],
    layout: layouts.Layout,
    *,
    batch_size: int,
    num_streams: int = 1,
    seed: int,
    num_workers: int,
    cache_size: int = 0,
    sharding: jax.sharding.Sharding,
) -> streaming.BatchStreams:
    """Return endless `Canvas` batches of packed rows. Documents are shuffled again in each epoch.

    Args:
        source: random access to documents; picklable if there are workers.
        layout: mapping from documents to slots.
        batch_size: number of rows of the global batch, B.
        num_streams: number of streams, S, a divisor of B. With fewer streams than processes,
            several processes run the same stream and use different rows of it.
        seed: RNG seed for shuffling and packing.
        num_workers: number of worker processes that lay out and pack documents, at most one per
            stream. With 0, a thread of this process does this work.
        cache_size: maximum number of laid-out documents that each process caches.
        sharding: sharding of the rows.
    """
    documents = _shuffle_repeat(_CachedSource(source, layout.row, cache_size), seed)

    def stream(number: int) -> grain.IterDataset[Canvas]:
        packed = grain.experimental.FirstFitPackIterDataset(
            documents[number::num_streams].to_iter_dataset(READ_OPTIONS),
            length_struct=dict.fromkeys(
                ("ids", "latents", "modality", "span", "position", "is_given", "insertable"),
                layout.length,
            ),
            num_packing_bins=PACKING_BINS,
            seed=seed,
        )
        return packed.map(_to_canvas).batch(batch_size // num_streams, drop_remainder=True)

    return _make_streams(
        stream, _HostShard((batch_size, layout.length), num_streams, sharding), num_workers
    )


def image_batches(
    source: Sequence[Document],
    *,
    pixels: int,
    batch_size: int,
    num_streams: int = 1,
    seed: int,
    num_workers: int,
    cache_size: int = 0,
    sharding: jax.sharding.Sharding,
) -> streaming.BatchStreams:
    """Return endless batches of images, uint8 `[B pixels pixels 3]`.

    Each document with images contributes one of its images, chosen at random in each epoch.

    Args:
        source: random access to documents; picklable if there are workers.
        pixels: height and width of all images.
        batch_size: number of images of the global batch, B.
        num_streams: number of streams, a divisor of `batch_size`.
        seed: RNG seed for shuffling and for the choice of images.
        num_workers: number of worker processes that read documents. With 0, a thread of this
            process reads them.
        cache_size: maximum number of documents whose images each process caches.
        sharding: sharding of the images.

    Raises:
        UserError: an image is not `pixels` x `pixels`. The error is raised when it is read.
    """
    read = functools.partial(check_image_size, pixels)
    # Choose images before splitting into streams. Otherwise all streams would get the same random
    # numbers.
    images = _shuffle_repeat(_CachedSource(source, read, cache_size), seed).random_map(_pick_image)

    def stream(number: int) -> grain.IterDataset[UInt8[np.ndarray, "n pixels pixels 3"]]:
        mine = images[number::num_streams].to_iter_dataset(READ_OPTIONS)
        return mine.batch(batch_size // num_streams, drop_remainder=True)

    return _make_streams(
        stream, _HostShard((batch_size, pixels), num_streams, sharding), num_workers
    )


def check_image_size(
    pixels: int, document: Document
) -> tuple[UInt8[np.ndarray, "pixels pixels 3"], ...]:
    """Check that each image of a document is `pixels` x `pixels`, and return the images.

    Raises:
        UserError: an image is not `pixels` x `pixels`.
    """
    images = document.images()
    for picture in images:
        if picture.shape != (pixels, pixels, 3):
            raise UserError(
                f"data.pixels={pixels}: the data set has an image of shape {picture.shape} instead "
                f"of {(pixels, pixels, 3)}. Change data.pixels, or the data set's image size."
            )
    return images


def _shuffle_repeat(documents: Sequence[Any], seed: int) -> grain.MapDataset:
    """Repeat the documents endlessly, each epoch in another order."""
    return grain.MapDataset.source(documents).seed(seed).shuffle().repeat()


def _make_streams(
    make_stream: Callable[[int], grain.IterDataset], shard: "_HostShard", num_workers: int
) -> streaming.BatchStreams:
    """Return the batches of this process; `make_stream` makes the stream with a given number."""
    mine = {number: make_stream(number) for number in shard.stream_ids()}
    return streaming.BatchStreams(mine, num_workers, shard.to_device)


@dataclasses.dataclass(frozen=True)
class _HostShard:
    """The rows of a global batch that are on the devices of this process.

    `shape` is (rows, slots) of the global batch, or (images, pixels) for `image_batches`. The rows
    are divided among `num_streams` streams.
    """

    shape: tuple[int, int]
    num_streams: int
    sharding: jax.sharding.Sharding

    def stream_ids(self) -> list[int]:
        """Return the streams that have at least one row on this process's devices."""
        rows, _ = self.shape
        each = rows // self.num_streams
        held = self.sharding.addressable_devices_indices_map(self.shape).values()
        return sorted({row // each for where, _ in held for row in range(rows)[where]})

    def to_device(self, rows_by_stream: Mapping[int, PyTree]) -> PyTree:
        """Assemble the rows of each stream into a batch on the devices."""
        numbers = sorted(rows_by_stream)
        return jax.tree.map(
            lambda *rows: self._put_rows(numbers, np.concatenate(rows)),
            *[rows_by_stream[number] for number in numbers],
        )

    def _put_rows(self, stream_ids: list[int], values: np.ndarray) -> jax.Array:
        """Put `values`, the rows of the streams `stream_ids`, on the devices."""
        rows, _ = self.shape
        each = rows // self.num_streams

        def chosen(index: tuple[slice, ...]) -> np.ndarray:
            # The rows of a device are contiguous, and so are the streams of these rows.
            start, stop, _ = index[0].indices(rows)
            first = stream_ids.index(start // each) * each + start % each
            return values[first : first + stop - start, *index[1:]]

        shape = (rows, *values.shape[1:])
        return jax.make_array_from_callback(shape, self.sharding, chosen)


class _CachedSource:
    """The transformed documents of a source. The first `cache_size` that are read are cached.

    The cache helps because reading and laying out a small image takes longer than a training step
    of a small model on this image.
    """

    def __init__(
        self, source: Sequence[Document], transform: Callable[[Document], Any], cache_size: int
    ) -> None:
        self._source, self._transform, self._cache_size = source, transform, cache_size
        self._entries: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - the type that `transform` returns
        entry = self._entries.get(index)
        if entry is None:
            entry = self._transform(self._source[index])
            if len(self._entries) < self._cache_size:
                self._entries[index] = entry
        return entry


def _pick_image(images: tuple[np.ndarray, ...], rng: np.random.Generator) -> np.ndarray | None:
    # grain drops elements that are None.
    return images[rng.integers(len(images))] if images else None


def _to_canvas(packed: dict[str, np.ndarray]) -> Canvas:
    """Convert a packed row to a Canvas. Spans are numbered across all documents of the row."""
    kind, segment = packed["modality"], packed["modality_segment_ids"]
    changes = np.diff(packed["span"], prepend=0) != 0
    span = np.where(kind != Modality.PAD, np.cumsum(changes), 0)
    return Canvas(
        ids=packed["ids"],
        latents=packed["latents"],
        modality=kind,
        segment=segment.astype(np.int32),
        span=span.astype(np.int32),
        position=packed["position"],
        is_given=packed["is_given"],
        insertable=packed["insertable"],
    )
