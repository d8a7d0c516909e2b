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


def batches(
    source: Sequence[Document],
    layout: layouts.Layout,
    *,
    rows: int,
    seed: int,
    workers: int,
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
        sharding: where the rows go.
    """
    documents = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    documents = documents[jax.process_index() :: jax.process_count()]
    packed = grain.experimental.FirstFitPackIterDataset(
        documents.map(layout.row).to_iter_dataset(),
        length_struct=dict.fromkeys(
            ("ids", "latents", "kind", "span", "position", "fixed"), layout.length
        ),
        num_packing_bins=BINS,
        seed=seed,
    )
    batched = packed.map(_canvas).batch(rows // jax.process_count(), drop_remainder=True)
    if workers:
        batched = batched.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return batched.map(functools.partial(_place, sharding))


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
    )


def _place(sharding: jax.sharding.Sharding, batch: Canvas) -> Canvas:
    return jax.tree.map(
        lambda values: jax.make_array_from_process_local_data(sharding, values), batch
    )
