"""Data sets by name. TFDS prepares each of them once, and then reads documents in any order."""

import contextlib
import dataclasses
import inspect
import io
import logging
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Protocol

import tensorflow_datasets as tfds

from oneflow_jax import errors
from oneflow_jax.data import (
    digits,
    document,
    emoji,
    emoji_concepts,
    emoji_styles,
    generated,
    record_files,
    records,
    style_packages,
    toy,
)

_BUILDERS: dict[str, Callable[..., tfds.core.DatasetBuilder]] = {
    "digits": digits.builder,
    "emoji": emoji.builder,
    "emoji_styles": emoji_styles.builder,
}

_SETTINGS: dict[str, type] = {
    "digits": digits.Settings,
    "emoji": emoji.Settings,
    "emoji_styles": emoji_styles.Settings,
    "toy": toy.Toy,
}

_ATTRIBUTION = {
    "emoji": emoji_concepts.ATTRIBUTION,
    "emoji_styles": style_packages.ATTRIBUTION,
}


class Source(Protocol):
    """Random access to documents. A source is picklable, since grain's workers read from it."""

    def __len__(self) -> int:
        """Return the number of documents."""
        ...

    def __getitem__(self, index: int) -> document.Document:
        """Return the document at `index`, 0 to `len` - 1."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class RecordSource:
    """Documents that a TFDS data set stores in array_record files; see `records`."""

    files: record_files.RecordFiles

    @classmethod
    def open(cls, builder: tfds.core.DatasetBuilder, split: str) -> "RecordSource":
        """Open one split of a prepared data set."""
        parts = builder.info.splits[split].file_instructions
        paths = [os.fspath(part.filename) for part in parts]
        return cls(record_files.RecordFiles(paths, [part.examples_in_shard for part in parts]))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> document.Document:
        return records.deserialize(self.files[index])

    def outline(self, index: int) -> document.Document:
        """Return the document at `index` with a gap in place of each image."""
        return records.deserialize_outline(self.files[index])


def open_dataset(name: str, data_dir: str | pathlib.Path, split: str, **settings: object) -> Source:
    """Open one split of a data set, after preparing the data set if necessary.

    A data set is prepared once for each version of its packages. The preparation writes to a
    temporary folder in `data_dir`, and renames this folder at the end. If a preparation is
    interrupted, the next call starts it again.

    Args:
      name: name of the data set: 'digits', 'emoji', 'emoji_styles' or 'toy'.
      data_dir: folder of prepared data sets; 'toy' has no files.
      split: 'train', 'heldout', or another split of the data set.
      **settings: fields of `emoji.Settings`, `emoji_styles.Settings` or `toy.Toy`.

    Raises:
      UserError: the name, the split or a setting is unknown, or a setting is out of range.
    """
    if name == "toy":
        _check_settings(name, settings)
        return toy.Toy(split=split, **settings)
    errors.check_one_of("data set name", name, (*_BUILDERS, "toy"))
    _check_settings(name, settings)
    # Without this line every process would draw a progress bar.
    tfds.disable_progress_bar()
    builder = _prepare(name, data_dir, settings)
    errors.check_one_of(f"data set {name!r}: split", split, builder.info.splits)
    return RecordSource.open(builder, split)


def describe_packages(name: str, settings: Mapping[str, object]) -> str:
    """Return the versions of the packages that determine a data set's documents; "" for 'toy'.

    Raises:
      UserError: the name or a setting is unknown, or an npm package is missing.
    """
    errors.check_one_of("data set name", name, (*_BUILDERS, "toy"))
    _check_settings(name, settings)
    if name == "toy":
        return ""
    return generated.make_settings(_SETTINGS[name], settings).describe_packages()


def list_names(name: str, settings: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of what the images of a data set show, as its training texts have them.

    The result is () for a data set without a list of names.
    """
    settings_class = _SETTINGS[name]
    if not hasattr(settings_class, "list_names"):
        return ()
    return generated.make_settings(settings_class, settings).list_names()


def list_attribution(name: str) -> list[str]:
    """Return the authors and licenses of a data set's images, to be shown with the images.

    The list is empty if the images need no attribution.
    """
    return [_ATTRIBUTION[name]] if name in _ATTRIBUTION else []


def _prepare(
    name: str, data_dir: str | pathlib.Path, settings: Mapping[str, object]
) -> tfds.core.DatasetBuilder:
    builder = _BUILDERS[name](data_dir, **settings)
    if builder.data_path.exists():
        return builder
    logging.info(
        "Preparing the data set %r from packages of this machine, into %s. This happens once.",
        name,
        data_dir,
    )
    try:
        # TFDS prints that it downloads the data set, although nothing is downloaded.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except FileExistsError:
        # Another process finished the same preparation first, and wrote the same bytes.
        builder = _BUILDERS[name](data_dir, **settings)
    return builder


def _check_settings(name: str, settings: Mapping[str, object]) -> None:
    known = list(inspect.signature(_SETTINGS[name]).parameters)
    for key in settings:
        if key not in known or key == "split":
            allowed = ", ".join(field for field in known if field != "split") or "none"
            raise errors.UserError(f"data set {name!r} has no setting {key!r}. It has: {allowed}.")
