"""An image classifier: the label of the nearest image in pixel space, at several scales."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.data.labels import LabeledImage


@dataclasses.dataclass(frozen=True, eq=False)
class NearestImage:
    """Nearest-neighbor search among labeled images; an `interleaved.ImageClassifier`.

    Attributes:
        labels: label of each image.
        vectors: `features` of each image.
    """

    labels: Sequence[str]
    vectors: Float[np.ndarray, "n f"]

    @classmethod
    def from_images(cls, images: Sequence[LabeledImage]) -> "NearestImage":
        """Index the images, which must all have the same size."""
        vectors = np.stack([features(image.pixels) for image in images])
        return cls([image.label for image in images], vectors)

    def __call__(self, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[str]:
        """Return, for each image, the label of the nearest indexed image; sizes must be equal."""
        nearest = []
        for image in images:
            distances = np.square(self.vectors - features(image)[None]).sum(axis=1)
            nearest.append(self.labels[int(distances.argmin())])
        return nearest


def features(pixels: UInt8[np.ndarray, "n n 3"]) -> Float[np.ndarray, "f"]:
    """Return the features of an image for nearest-neighbor search.

    The squared distance between two feature vectors is the sum, over four scales, of the mean
    squared difference of the images. The scales are full resolution, and averages of blocks of 2 x
    2, 4 x 4 and 8 x 8 pixels. With the coarse scales, the distance depends on shapes and colors,
    not only on edges.
    """
    values = pixels.astype(np.float32) / 255
    size = len(values)
    scales = [
        values.reshape(size // n, n, size // n, n, 3).mean(axis=(1, 3)).reshape(-1)
        for n in (1, 2, 4, 8)
        if size % n == 0
    ]
    return np.concatenate([scale / np.sqrt(scale.size) for scale in scales])
