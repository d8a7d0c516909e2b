"""Conversion of documents to records of TFDS data sets, and of records to documents.

A record has two fields. `document` is a JSON list of `{"text": words}` and `{"image": k}` in
reading order. `images` is a list of images, and k is an index into this list. An image that is not
square also has `"ratio": "3:2"`, the reduced fraction of its width and height. TFDS can read these
records without TensorFlow.
"""

import functools
import json
import logging
from collections.abc import Mapping
from typing import Any

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from oneflow_jax.data import document as documents
from oneflow_jax.data import image_io, image_shapes


def _is_relevant(message: logging.LogRecord) -> bool:
    """Return False for TFDS's advice to install OpenCV; Pillow decodes the same pixels."""
    return not message.getMessage().startswith("OpenCV is not installed")


# TFDS gives the advice in each process that decodes an image, also in workers of the data loader.
absl.logging.get_absl_logger().addFilter(_is_relevant)


def features() -> tfds.features.FeaturesDict:
    """Return the TFDS features of a record; images may differ in size."""
    picture = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    return tfds.features.FeaturesDict(
        {"document": tfds.features.Text(), "images": tfds.features.Sequence(picture)}
    )


def encode(document: documents.Document) -> dict[str, Any]:
    """Return the example that a TFDS builder yields: JSON text and PNG bytes.

    Raises:
        TypeError: the document has a gap; only documents without gaps can be stored.
    """
    # Images are PNG bytes, because TFDS needs TensorFlow to encode an array.
    images: list[bytes] = []
    parts: list[dict[str, str | int]] = []
    for part in document.parts:
        match part:
            case documents.Text(text):
                parts.append({"text": text})
            case documents.Image(pixels):
                ratio = image_shapes.reduce_ratio(pixels.shape[1], pixels.shape[0])
                shape = {} if ratio == image_shapes.SQUARE else {"ratio": ratio}
                parts.append({"image": len(images)} | shape)
                images.append(image_io.to_png(pixels))
            case _:
                raise TypeError(f"documents with gaps cannot be stored; this one has {part}")
    return {"document": json.dumps(parts), "images": images}


def serialize(document: documents.Document) -> bytes:
    """Return the record as the bytes that TFDS stores. Equal documents give equal bytes.

    Raises:
        TypeError: the document has a gap.
    """
    record = features().serialize_example(encode(document))
    # TFDS serializes the features in an order that differs between processes. Serialize them again
    # in a fixed order.
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


def deserialize(record: bytes) -> documents.Document:
    """Return the document of a record, as `serialize` or a TFDS builder stored it."""
    return decode(_cached_features().deserialize_example_np(record))


def deserialize_outline(record: bytes) -> documents.Document:
    """Return the document of a record with a gap of the same shape in place of each image.

    No image is decoded, so this takes a small part of the time of `deserialize`.
    """
    stored = tf_example_pb2.Example.FromString(record).features.feature["document"]
    parts = json.loads(stored.bytes_list.value[0])
    return documents.Document(
        tuple(
            documents.Text(part["text"])
            if "text" in part
            else documents.Gap("image", aspect_ratio=part.get("ratio"))
            for part in parts
        )
    )


@functools.cache
def _cached_features() -> tfds.features.FeaturesDict:
    return features()


def decode(record: Mapping[str, Any]) -> documents.Document:
    """Return the document of a record that TFDS has read (JSON bytes and uint8 arrays)."""
    parts = json.loads(record["document"])
    return documents.Document(
        tuple(
            documents.Text(part["text"])
            if "text" in part
            else documents.Image(np.asarray(record["images"][part["image"]]))
            for part in parts
        )
    )
