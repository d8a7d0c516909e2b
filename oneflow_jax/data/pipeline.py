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

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import streams as streaming
from oneflow_jax.data.document import Document
from oneflow_jax.errors import UserError
from oneflow_jax.shapes import PyTree, UInt8

PACKING_BINS = 64
"""Rows that are packed together: more leave fewer slots empty, and make a resume slower."""

READ_OPTIONS = grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
"""Documents read ahead. grain looks at all of them for each that it hands on, so that its default
of 500 costs more than to read a small document."""


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
    """Endless batches of packed rows, `Canvas`, in an order drawn anew each epoch.

    Args:
        source: random access to documents; picklable if there are workers.
        layout: how a document becomes slots.
        batch_size: of the global batch, B.
        num_streams: independent parts of the batch, S, a divisor of B. With fewer than processes,
            some of these read the same documents and take different rows of theirs.
        seed: of the order.
        num_workers: processes that lay out and pack, at most one a stream; 0 does it in a thread of
            this one.
        cache_size: how many documents, laid out, each process may keep in memory.
        sharding: where the rows go.
    """
    documents = _shuffle_repeat(_CachedSource(source, layout.row, cache_size), seed)

    def stream(number: int) -> grain.IterDataset[Canvas]:
        packed = grain.experimental.FirstFitPackIterDataset(
            documents[number::num_streams].to_iter_dataset(READ_OPTIONS),
            length_struct=dict.fromkeys(
                ("ids", "latents", "kind", "span", "position", "fixed", "opening"), layout.length
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
    """Endless batches of pictures, uint8 `[B pixels pixels 3]`; the other arguments as above.

    Each document that has pictures shows one of them, drawn anew each time.

    Args:
        source: random access to documents; picklable if there are workers.
        pixels: height and width of all pictures.
        batch_size: pictures of the global batch, B.
        num_streams: independent parts of the batch.
        seed: of the order.
        num_workers: processes that read; 0 does it in a thread of this one.
        cache_size: how many documents' pictures each process may keep in memory.
        sharding: where the pictures go.

    Raises:
        UserError: a picture has another size, when it comes.
    """
    read = functools.partial(check_image_size, pixels)
    # Drawn by the place among all documents: streams would else all draw the same numbers.
    shown = _shuffle_repeat(_CachedSource(source, read, cache_size), seed).random_map(_pick_image)

    def stream(number: int) -> grain.IterDataset[UInt8[np.ndarray, "n pixels pixels 3"]]:
        mine = shown[number::num_streams].to_iter_dataset(READ_OPTIONS)
        return mine.batch(batch_size // num_streams, drop_remainder=True)

    return _make_streams(
        stream, _HostShard((batch_size, pixels), num_streams, sharding), num_workers
    )


def check_image_size(
    pixels: int, document: Document
) -> tuple[UInt8[np.ndarray, "pixels pixels 3"], ...]:
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


def _shuffle_repeat(documents: Sequence[Any], seed: int) -> grain.MapDataset:
    """Endlessly, each epoch in another order."""
    return grain.MapDataset.source(documents).seed(seed).shuffle().repeat()


def _make_streams(
    make_stream: Callable[[int], grain.IterDataset], shard: "_HostShard", num_workers: int
) -> streaming.BatchStreams:
    """Batches of this process's streams, which `make_stream` makes by number."""
    mine = {number: make_stream(number) for number in shard.numbers()}
    return streaming.BatchStreams(mine, num_workers, shard.placed)


@dataclasses.dataclass(frozen=True)
class _HostShard:
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


class _CachedSource:
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


def _pick_image(images: tuple[np.ndarray, ...], rng: np.random.Generator) -> np.ndarray | None:
    # grain leaves out what is None.
    return images[rng.integers(len(images))] if images else None


def _to_canvas(packed: dict[str, np.ndarray]) -> Canvas:
    """One packed row; its span numbers, which began anew with each document, run through."""
    kind, segment = packed["kind"], packed["kind_segment_ids"]
    changes = np.diff(packed["span"], prepend=0) != 0
    span = np.where(kind != Modality.PAD, np.cumsum(changes), 0)
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
