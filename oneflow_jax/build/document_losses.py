"""Builder of the rows for losses of single documents (`training.document_losses`)."""

import dataclasses
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from oneflow_jax.build import data
from oneflow_jax.data import image_io, shuffle
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.document import Document
from oneflow_jax.data.sources import Source
from oneflow_jax.evaluation import caption_match, nearest_image
from oneflow_jax.training.conditioning import SPLITS
from oneflow_jax.training.document_losses import DocumentRows, SplitRows

LENGTH_MULTIPLE = 16
"""Rows are shortened to the longest document, rounded up to a multiple of this number of slots."""

MAX_MATCH_DOCUMENTS = 1_000
"""Maximum number of training documents whose captions and images are compared."""

MAX_READ_FACTOR = 4
"""Documents that are read to find one with text and images, on average, at most."""


def make_rows(
    config: ml_collections.ConfigDict, layout: layouts.Layout, sharding: jax.sharding.Sharding
) -> dict[str, SplitRows]:
    """Lay out `evaluation.loss_documents` documents of each split, and place them on the devices.

    Only documents with text and images are used. The result is empty if a split has none.
    """
    count, chosen = config.evaluation.loss_documents, {}
    if not count:
        return {}
    for split in SPLITS:
        source = data.open_pipeline_split(config, layout, split)
        chosen[split] = select(source, count)
        if not chosen[split]:
            return {}
    exchanged = {split: shuffle.exchange(documents) for split, documents in chosen.items()}
    lengths = [len(layout.row(each)["modality"]) for part in chosen.values() for each in part]
    longest = -(-max(lengths) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    # A mesh that shards slots may need more of them than the longest document has.
    can_shorten = config.mesh.context == 1 and longest < layout.length
    layout = dataclasses.replace(layout, length=longest) if can_shorten else layout

    def place(documents: Sequence[Document]) -> DocumentRows:
        rows = [layout.row(document) for document in documents]
        size = config.batch_size
        canvases = []
        for first in range(0, len(rows), size):
            batch = rows[first : first + size]
            canvas = layout.canvas([*batch, *[batch[0]] * (size - len(batch))])
            canvases.append(jax.device_put(canvas, sharding))
        return DocumentRows(tuple(canvases), len(rows))

    return {
        split: SplitRows(
            documents=place(chosen[split]),
            originals=place([one.original for one in exchanged[split]]),
            other_texts=place([one.other_texts for one in exchanged[split]]),
            other_images=place([one.other_images for one in exchanged[split]]),
        )
        for split in SPLITS
    }


def measure_caption_match(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Measure whether captions and images of a user's own data belong together, without a model.

    Returns:
        Metrics of `evaluation.caption_match` by name; {} if too few captions share words.
    """
    documents = select(data.open_split(config, "train"), MAX_MATCH_DOCUMENTS)
    if not documents:
        return {}
    squares = [image_io.resize(each.images()[0], config.codec.pixels) for each in documents]
    features = np.stack([nearest_image.features(square) for square in squares])
    match = caption_match.measure([document.text() for document in documents], features)
    if match is None:
        return {}
    return {
        "reference_caption_match": match.value,
        "reference_caption_match_chance": match.chance,
    }


def select(source: Source, count: int) -> list[Document]:
    """Return up to `count` documents with text and images, spread evenly over a source."""
    total = len(source)
    read = min(total, MAX_READ_FACTOR * count)
    documents = [source[n * total // read] for n in range(read)]
    both = [document for document in documents if shuffle.has_both(document)]
    return [both[n * len(both) // count] for n in range(count)] if len(both) > count else both
