"""Documents: what people write and read, before any token or array."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class Text:
    """A run of words."""

    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    """A picture: `pixels` is uint8 `[height width 3]`, RGB, 0 to 255."""

    pixels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture as a learned codec has left it: `latents` is float32 `[h w C]`, not yet scaled."""

    latents: np.ndarray


@dataclasses.dataclass(frozen=True)
class Gap:
    """A hole that the model is to fill: with words, with one picture, or with any number of both.

    `slots` is the room for words, in tokens; None leaves it to the layout. Pictures have one size.
    """

    kind: Literal["text", "image", "document"]
    slots: int | None = None

    def __str__(self) -> str:
        """Its tag in the language of prompts."""
        return f"<{self.kind}>" if self.slots is None else f"<{self.kind}:{self.slots}>"


Part = Text | Image | EncodedImage | Gap


@dataclasses.dataclass(frozen=True)
class Document:
    """Words and pictures in reading order, perhaps with gaps."""

    parts: tuple[Part, ...]

    def words(self) -> str:
        """All text of the document, its runs joined by single spaces."""
        return " ".join(part.text for part in self.parts if isinstance(part, Text))

    def pictures(self) -> tuple[np.ndarray, ...]:
        """The pixels of all pictures, in reading order."""
        return tuple(part.pixels for part in self.parts if isinstance(part, Image))


def group_runs(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """The parts, with neighboring words and gaps for words together."""
    for text, group in itertools.groupby(parts, is_text):
        run = list(group)
        yield from [run] if text else ([part] for part in run)


def is_text(part: Part) -> bool:
    """Whether it holds words, or may: a gap for words, or for anything."""
    return isinstance(part, Text) or (isinstance(part, Gap) and part.kind != "image")
