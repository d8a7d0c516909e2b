"""Data sets by name: prepared once by TFDS, then read in any order."""

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow_datasets as tfds

from oneflow_jax import errors
from oneflow_jax.data import digits, document, emoji, records, toy

_BUILDERS: dict[str, Callable[..., tfds.core.DatasetBuilder]] = {
    "digits": digits.builder,
    "emoji": emoji.builder,
}


class Source(Protocol):
    """Documents in random access; picklable, so that grain's workers can read them."""

    def __len__(self) -> int:
        """The number of documents."""
        ...

    def __getitem__(self, index: int) -> document.Document:
        """The document at `index`, 0 to `len` - 1."""
        ...


@dataclasses.dataclass(frozen=True)
class RecordSource:
    """The documents of stored records."""

    records: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> document.Document:
        # Python ends a for loop on IndexError; array_record raises ValueError.
        if not 0 <= index < len(self):
            raise IndexError(f"{index=} of {len(self)} documents")
        return records.decode(self.records[index])


def open_dataset(name: str, data_dir: str | pathlib.Path, split: str, **settings: object) -> Source:
    """Returns the documents of one split, after preparing the data set if need be.

    A data set is prepared once, in `data_dir`, in a temporary folder that is renamed when whole: a
    preparation that was killed is done anew by the next call.

    Args:
      name: 'digits', 'emoji' or 'toy'.
      data_dir: where prepared data sets live; 'toy' has no files.
      split: 'train', 'heldout', or another that the data set has.
      **settings: the data set's own, as in `emoji.Settings` and `toy.Toy`.

    Raises:
      UserError: an unknown name, split or setting, or a setting out of range.
    """
    if name == "toy":
        _check_settings(name, settings, toy.Toy)
        return toy.Toy(split=split, **settings)
    if name not in _BUILDERS:
        known = ", ".join([*_BUILDERS, "toy"])
        raise errors.UserError(f"data set name={name!r} is unknown; choose from {known}")
    _check_settings(name, settings, emoji.Settings if name == "emoji" else None)
    # Its bars would be drawn by every process of a pod.
    tfds.disable_progress_bar()
    builder = _prepare(name, data_dir, settings)
    if split not in builder.info.splits:
        known = ", ".join(builder.info.splits)
        raise errors.UserError(f"data set {name!r} has no split {split!r}; choose from {known}")
    return RecordSource(builder.as_data_source(split))


def _prepare(
    name: str, data_dir: str | pathlib.Path, settings: Mapping[str, object]
) -> tfds.core.DatasetBuilder:
    builder = _BUILDERS[name](data_dir, **settings)
    try:
        builder.download_and_prepare()
    except FileExistsError:
        # Another process finished the same preparation first, with the same bytes.
        builder = _BUILDERS[name](data_dir, **settings)
    return builder


def _check_settings(name: str, settings: Mapping[str, object], schema: type | None) -> None:
    known = [] if schema is None else list(inspect.signature(schema).parameters)
    for key in settings:
        if key not in known or key == "split":
            allowed = ", ".join(field for field in known if field != "split") or "none"
            raise errors.UserError(f"data set {name!r} has no setting {key!r}; it has: {allowed}")
