"""From documents to batches on devices, by grain: shuffle, lay out, pack, batch, prefetch.

The iterator's state is saved with each checkpoint and brings back the very next batch, also in
the middle of an epoch.
"""

import functools
from collections.abc import Sequence

import grain
import jax
import numpy as np

from oneflow_jax.canvas import Canvas, Kind
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.document import Document

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
    documents = grain.MapDataset.source(_Rows(source, layout, cache))
    documents = documents.seed(seed).shuffle().repeat()
    documents = documents[jax.process_index() :: jax.process_count()]
    packed = grain.experimental.FirstFitPackIterDataset(
        documents.to_iter_dataset(READING),
        length_struct=dict.fromkeys(
            ("ids", "latents", "kind", "span", "position", "fixed", "opening"), layout.length
        ),
        num_packing_bins=BINS,
        seed=seed,
    )
    batched = packed.map(_canvas).batch(rows // jax.process_count(), drop_remainder=True)
    if workers:
        batched = batched.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    placed = batched.map(functools.partial(_place, sharding))
    return grain.experimental.ThreadPrefetchIterDataset(placed, prefetch_buffer_size=AHEAD)


class _Rows:
    """The documents of a source, laid out; the first `cache` that are asked for are kept.

    To read and lay out a small picture takes longer than a small model takes to learn from it.
    """

    def __init__(self, source: Sequence[Document], layout: layouts.Layout, cache: int) -> None:
        self._source, self._layout, self._cache = source, layout, cache
        self._kept: dict[int, layouts.Row] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> layouts.Row:
        row = self._kept.get(index)
        if row is None:
            row = self._layout.row(self._source[index])
            if len(self._kept) < self._cache:
                self._kept[index] = row
        return row


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
