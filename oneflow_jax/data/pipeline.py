"""From documents to batches on devices, by grain: shuffle, lay out, pack, batch, prefetch.

Or, for what learns from pictures alone, a picture of each document.

The iterator's state is saved with each checkpoint and brings back the very next batch, also in
the middle of an epoch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax
import numpy as np

from oneflow_jax.canvas import Canvas, Kind
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.document import Document
from oneflow_jax.errors import UserError
from oneflow_jax.shapes import Array, UInt8

BINS = 64
"""Rows that are packed together: more leave fewer slots empty, and make a resume slower."""

READING = grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
"""Documents read ahead. grain looks at all of them for each that it hands on, so that its default
of 500 costs more than to read a small document."""

AHEAD = 2
"""Batches that are on the devices before they are asked for."""


def batches(
    source: Sequence[Document],
    layout: layouts.Layout,
    *,
    rows: int,
    seed: int,
    workers: int,
    cache: int = 0,
    sharding: jax.sharding.Sharding,
) -> grain.IterDataset[Canvas]:
    """Endless batches of packed rows, in an order drawn anew each epoch.

    Args:
        source: random access to documents; picklable if there are workers.
        layout: how a document becomes slots.
        rows: of the global batch, B; each process loads its share of them.
        seed: of the order.
        workers: processes that lay out and pack; 0 does it in a thread of this one. A state saved
            with some number of workers is only right for the same number.
        cache: how many documents, laid out, each process may keep in memory.
        sharding: where the rows go.
    """
    documents = _shuffled(_Cached(source, layout.row, cache), seed)
    packed = grain.experimental.FirstFitPackIterDataset(
        documents.to_iter_dataset(READING),
        length_struct=dict.fromkeys(
            ("ids", "latents", "kind", "span", "position", "fixed", "opening"), layout.length
        ),
        num_packing_bins=BINS,
        seed=seed,
    )
    batched = packed.map(_canvas).batch(rows // jax.process_count(), drop_remainder=True)
    return _ahead(batched, workers, sharding)


def pictures(
    source: Sequence[Document],
    *,
    pixels: int,
    rows: int,
    seed: int,
    workers: int,
    cache: int = 0,
    sharding: jax.sharding.Sharding,
) -> grain.IterDataset[UInt8[Array, "B pixels pixels 3"]]:
    """Endless batches of pictures, in an order drawn anew each epoch; the other arguments as above.

    Each document that has pictures shows one of them, drawn anew each time.

    Args:
        source: random access to documents; picklable if there are workers.
        pixels: height and width of all pictures.
        rows: pictures of the global batch, B.
        seed: of the order.
        workers: processes that read; 0 does it in a thread of this one.
        cache: how many documents' pictures each process may keep in memory.
        sharding: where the pictures go.

    Raises:
        UserError: a picture has another size, when it comes.
    """
    read = functools.partial(sized, pixels)
    documents = _shuffled(_Cached(source, read, cache), seed)
    shown = documents.random_map(_one_of).to_iter_dataset(READING)
    batched = shown.batch(rows // jax.process_count(), drop_remainder=True)
    return _ahead(batched, workers, sharding)


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
    """Endlessly, each epoch in another order; this process's share."""
    endless = grain.MapDataset.source(documents).seed(seed).shuffle().repeat()
    return endless[jax.process_index() :: jax.process_count()]


def _ahead(
    batched: grain.IterDataset, workers: int, sharding: jax.sharding.Sharding
) -> grain.IterDataset:
    """The batches on the devices, made before they are asked for."""
    if workers:
        batched = batched.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    placed = batched.map(functools.partial(_place, sharding))
    return grain.experimental.ThreadPrefetchIterDataset(placed, prefetch_buffer_size=AHEAD)


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


def _place(sharding: jax.sharding.Sharding, batch: Canvas) -> Canvas:
    return jax.tree.map(
        lambda values: jax.make_array_from_process_local_data(sharding, values), batch
    )
