"""Data sets of TFDS whose documents are generated from settings."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import tensorflow_datasets as tfds

Builder = TypeVar("Builder", bound=tfds.core.DatasetBuilder)


class Settings(Protocol):
    """Settings that determine all documents of a data set."""

    @property
    def name(self) -> str:
        """Folder name that is unique to the settings."""
        ...


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """TFDS builder configuration that holds the settings."""

    settings: Settings | None = None

    def __str__(self) -> str:
        """Return only the name: TFDS logs this string whenever it opens the data set."""
        return self.name


def make_builder(
    builder_class: Callable[..., Builder],
    settings_class: Callable[..., Settings],
    data_dir: str | pathlib.Path,
    values: Mapping[str, object],
) -> Builder:
    """Return the TFDS builder of a data set in `data_dir`.

    Args:
        builder_class: class of the data set.
        settings_class: dataclass of its settings, which raises `UserError` for wrong values.
        data_dir: folder of prepared data sets.
        values: fields of the settings. Lists are converted to tuples.
    """
    settings = settings_class(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    )
    config = Config(name=settings.name, settings=settings)
    return builder_class(data_dir=data_dir, config=config, file_format="array_record")
