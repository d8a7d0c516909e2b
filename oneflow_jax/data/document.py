"""Documents of text, images and gaps, before tokenization and layout."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from oneflow_jax.data import image_shapes
from oneflow_jax.errors import UserError, check_integer, check_one_of


@dataclasses.dataclass(frozen=True)
class Text:
    """A text, as one part of a document."""

    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    """An image: `pixels` is uint8 `[height width 3]`, RGB, 0 to 255."""

    pixels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image encoded by an autoencoder.

    Attributes:
        latents: float32 `[h w C]`, not normalized.
        image_hash: hash of the pixels, or "" if it is not known.
    """

    latents: np.ndarray
    image_hash: str = ""


GAP_KINDS = ("text", "image", "document")


@dataclasses.dataclass(frozen=True)
class Gap:
    """A gap that the model fills with text, with one image, or with any number of texts and images.

    Attributes:
        kind: one of `GAP_KINDS`.
        slots: number of text slots, in tokens; if it is None, the layout chooses the number.
        aspect_ratio: width to height of an image, such as "3:2"; None for a square.

    Raises:
        UserError: the kind is unknown, the number of slots is not a positive integer, or the aspect
            ratio is malformed.
    """

    kind: Literal["text", "image", "document"]
    slots: int | None = None
    aspect_ratio: str | None = None

    def __post_init__(self) -> None:
        check_one_of("Gap: kind", self.kind, GAP_KINDS)
        if self.aspect_ratio is not None:
            self._reduce_ratio(self.aspect_ratio)
        if self.slots is None:
            return
        if self.kind != "text":
            raise UserError(
                f"Gap: slots={self.slots!r}: a gap of kind {self.kind!r} takes no slots. "
                "Leave out slots."
            )
        check_integer("Gap: slots", self.slots, 1)
        object.__setattr__(self, "slots", int(self.slots))

    def _reduce_ratio(self, ratio: str) -> None:
        if self.kind != "image":
            raise UserError(
                f"Gap: aspect_ratio={ratio!r}: a gap of kind {self.kind!r} has no aspect ratio. "
                "Leave out aspect_ratio."
            )
        reduced = image_shapes.reduce_ratio(*image_shapes.parse_ratio(ratio))
        # Equal gaps are equal objects.
        value = None if reduced == image_shapes.SQUARE else reduced
        object.__setattr__(self, "aspect_ratio", value)

    def __str__(self) -> str:
        """Return the tag of the gap in a prompt."""
        if self.aspect_ratio is not None:
            return f"<{self.kind} {self.aspect_ratio}>"
        return f"<{self.kind}>" if self.slots is None else f"<{self.kind}:{self.slots}>"


Part = Text | Image | EncodedImage | Gap


@dataclasses.dataclass(frozen=True)
class Document:
    """Text and images in reading order, and possibly gaps."""

    parts: tuple[Part, ...]

    def text(self) -> str:
        """Return all texts of the document, joined by single spaces."""
        return " ".join(part.text for part in self.parts if isinstance(part, Text))

    def images(self) -> tuple[np.ndarray, ...]:
        """Return the pixels of all images, in reading order."""
        return tuple(part.pixels for part in self.parts if isinstance(part, Image))


def group_runs(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Yield parts in groups: adjacent parts for which `is_text` is true, and each image alone."""
    for text, group in itertools.groupby(parts, is_text):
        run = list(group)
        yield from [run] if text else ([part] for part in run)


def get_proportions(part: Part) -> tuple[int, int]:
    """Return width and height of an image or image gap, in any unit, such as pixels or latents."""
    match part:
        case Image(values) | EncodedImage(values):
            return values.shape[1], values.shape[0]
        case Gap("image", _, ratio):
            return image_shapes.parse_ratio(ratio or image_shapes.SQUARE)
    raise TypeError(f"{part!r} is not an image")


def is_text(part: Part) -> bool:
    """Return whether a part is text or may become text (a text gap or a document gap)."""
    return isinstance(part, Text) or (isinstance(part, Gap) and part.kind != "image")
