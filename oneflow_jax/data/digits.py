"""Handwritten digits with captions: 1,797 scans of 8x8 pixels from scikit-learn."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from oneflow_jax.data import document, generated, records, splits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

TEMPLATES = (
    "a drawing of the digit {}",
    "this is the number {} here",
    "{} is the digit drawn here",
    "someone wrote the numeral {} here",
)

CAPTIONS = {
    template.format(name): digit for template in TEMPLATES for digit, name in enumerate(NAMES)
}
"""Dict from each of the 40 captions to the digit that it names."""

_NUM_SPLIT_BUCKETS = 6  # one scan in six is held out


@dataclasses.dataclass(frozen=True)
class Settings:
    """The data set has no settings."""

    name: ClassVar[str] = "digits"

    def describe_packages(self) -> str:
        """Return the version of the package that contains the scans."""
        return generated.describe_versions(["scikit-learn"])

    def list_names(self) -> tuple[str, ...]:
        """Return the names of the digits."""
        return NAMES


def parse_digit(caption: str) -> int | None:
    """Return the digit that a caption names, or None if the caption is not in `CAPTIONS`."""
    return CAPTIONS.get(caption)


class Digits(tfds.core.GeneratorBasedBuilder):
    """Documents of one caption followed by one image; splits 'train' and 'heldout'."""

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded. Without this line TFDS 4.9.10 would import importlib_resources to look
    # up checksums, and TFDS does not declare this dependency.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="8x8 scans of handwritten digits (scikit-learn), each with a caption.",
            features=records.features(),
            homepage="https://archive.ics.uci.edu/dataset/80",
            license="CC BY 4.0 (the scans); BSD-3-Clause (scikit-learn's copy)",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager  # Unused: nothing is downloaded.
        return {
            "train": self._generate_examples(held_out=False),
            "heldout": self._generate_examples(held_out=True),
        }

    def _generate_examples(self, held_out: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        from sklearn import datasets  # This import takes 2 s.

        scans = datasets.load_digits()
        for index, (scan, digit) in enumerate(zip(scans.images, scans.target, strict=True)):
            key = f"{index:04d}"
            if (splits.hash_bucket(f"split {key}", _NUM_SPLIT_BUCKETS) == 0) == held_out:
                yield key, records.encode(_make_document(key, scan, int(digit)))


def builder(data_dir: str | pathlib.Path) -> Digits:
    """Return the TFDS builder of the digits in `data_dir`."""
    return generated.make_builder(Digits, Settings, data_dir, {})


def _make_document(key: str, scan: np.ndarray, digit: int) -> document.Document:
    template = TEMPLATES[splits.hash_bucket(f"caption {key}", len(TEMPLATES))]
    caption = document.Text(template.format(NAMES[digit]))
    return document.Document((caption, document.Image(_to_rgb(scan))))


def _to_rgb(scan: np.ndarray) -> UInt8[np.ndarray, "8 8 3"]:
    """Convert a scan, whose values are 0 (no ink) to 16, to gray RGB with values 0 to 255."""
    grey = np.round(scan * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
