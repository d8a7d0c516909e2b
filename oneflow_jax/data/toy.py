"""Toy data set of solid colors and their names, for tests and first steps. It needs no files."""

import dataclasses
import random

import numpy as np

from oneflow_jax import errors
from oneflow_jax.data import document, sentences

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 220, 60),
    "black": (20, 20, 20),
    "white": (240, 240, 240),
}

SPLITS = ("train", "heldout")


@dataclasses.dataclass(frozen=True)
class Toy:
    """Documents that name the colors of solid images. Equal fields give equal documents.

    `interleaved` is the fraction of documents with several images, 0 to 1.
    """

    split: str = "train"
    documents: int = 256
    pixels: int = 4
    interleaved: float = 0.5

    def __post_init__(self) -> None:
        """Check that the split exists."""
        errors.check_one_of("toy: split", self.split, SPLITS)

    def list_names(self) -> tuple[str, ...]:
        """Return the names of the colors."""
        return tuple(COLORS)

    def __len__(self) -> int:
        return self.documents

    def __getitem__(self, index: int) -> document.Document:
        if not 0 <= index < self.documents:
            raise IndexError(f"{index=} of {self.documents} documents")
        rng = random.Random(f"toy/{self.split}/{index}")
        several = rng.random() < self.interleaved
        forms = sentences.INTERLEAVED_TEMPLATES if several else sentences.CAPTION_TEMPLATES
        template = rng.choice(forms)
        names = rng.sample(sorted(COLORS), sentences.num_names(template))
        return document.Document(
            tuple(
                document.Text(part)
                if isinstance(part, str)
                else document.Image(_solid_image(names[part], self.pixels))
                for part in sentences.render(template, names, "color")
            )
        )


def _solid_image(name: str, pixels: int) -> np.ndarray:
    return np.full((pixels, pixels, 3), COLORS[name], np.uint8)
