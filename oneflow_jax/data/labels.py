"""Labels of images: an emoji's name, such as "fox", or its style and name, such as "noto fox"."""

from collections.abc import Collection
from typing import Protocol

import numpy as np

from oneflow_jax.data import style_packages


class LabeledImage(Protocol):
    """An image of a data set and what it shows: a `Concept` or a `Drawing`."""

    @property
    def name(self) -> str:
        """CLDR short name, in lower case."""
        ...

    @property
    def label(self) -> str:
        """Name, preceded by the style if the data set has several styles."""
        ...

    @property
    def category(self) -> str:
        """Unicode category."""
        ...

    @property
    def kind(self) -> str:
        """Singular noun for the emoji in sentences, such as 'animal'."""
        ...

    @property
    def in_training(self) -> bool:
        """Whether the image is in the training split."""
        ...

    @property
    def keywords(self) -> tuple[str, ...]:
        """Keywords that a caption may have; may be empty."""
        ...

    @property
    def pixels(self) -> np.ndarray:
        """RGB image on white, uint8 `[n n 3]`."""
        ...


def split_label(label: str) -> tuple[str | None, str]:
    """Split a label into its style (None for a label without a style) and its name."""
    style, _, name = label.partition(" ")
    return (style, name) if style in style_packages.NAMES else (None, label)


def agrees(label: str | None, image_label: str) -> bool:
    """Return whether a label in a text is correct for an image with the label `image_label`.

    A label without a style is correct for images of its name in any style. None is never correct.
    """
    return label is not None and label in (image_label, split_label(image_label)[1])


def list_kinds(images: Collection[LabeledImage]) -> dict[str, str]:
    """Return a dict from each label that a text may contain to its kind, for use by `sentences`.

    The labels are the names of the images and, if images have styles, each name with each style.
    """
    kinds = {image.name: image.kind for image in images}
    styles = {split_label(image.label)[0]: None for image in images}
    return kinds | {
        f"{style} {name}": kind for style in styles if style for name, kind in kinds.items()
    }
