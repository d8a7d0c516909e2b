"""The one format in which documents are stored: written here, read here.

A record holds `document`, a JSON list of `{"text": words}` and `{"image": k}` in reading order,
and `images`, the pictures that the `k` count. TFDS reads it without TensorFlow.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from oneflow_jax.data import document as documents
from oneflow_jax.data import pictures


def features() -> tfds.features.FeaturesDict:
    """Returns the TFDS description of a record; pictures may differ in size."""
    picture = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    return tfds.features.FeaturesDict(
        {"document": tfds.features.Text(), "images": tfds.features.Sequence(picture)}
    )


def encode(document: documents.Document) -> dict[str, Any]:
    """Returns the example that a TFDS builder yields: JSON text and PNG bytes.

    Raises:
        TypeError: the document has a gap; only whole documents are stored.
    """
    # Encoded bytes, because TFDS needs TensorFlow to encode an array.
    images: list[bytes] = []
    parts: list[dict[str, str | int]] = []
    for part in document.parts:
        match part:
            case documents.Text(text):
                parts.append({"text": text})
            case documents.Image(pixels):
                parts.append({"image": len(images)})
                images.append(pictures.to_png(pixels))
            case _:
                raise TypeError(f"a stored document is whole, but this one holds {part}")
    return {"document": json.dumps(parts), "images": images}


def serialize(document: documents.Document) -> bytes:
    """Returns the record as TFDS stores it; the same bytes for the same document.

    Raises:
        TypeError: as for `encode`.
    """
    record = features().serialize_example(encode(document))
    # TFDS leaves the order of features to chance, another one in each process.
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


def decode(record: Mapping[str, Any]) -> documents.Document:
    """Returns the document of a record as TFDS reads it: JSON bytes and uint8 arrays."""
    parts = json.loads(record["document"])
    return documents.Document(
        tuple(
            documents.Text(part["text"])
            if "text" in part
            else documents.Image(np.asarray(record["images"][part["image"]]))
            for part in parts
        )
    )
