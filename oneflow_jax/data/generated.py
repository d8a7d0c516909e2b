"""TFDS data sets whose documents are generated from settings."""

import dataclasses
import importlib.metadata
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

import tensorflow_datasets as tfds

from oneflow_jax.data import splits

Builder = TypeVar("Builder", bound=tfds.core.DatasetBuilder)


class Settings(Protocol):
    """Settings of a data set. The settings and the package versions determine all documents."""

    @property
    def name(self) -> str:
        """Folder name that is unique to the settings."""
        ...

    def describe_packages(self) -> str:
        """Return the versions or hashes of the packages that determine the documents."""
        ...


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """TFDS builder configuration that holds the settings."""

    settings: Settings | None = None

    def __str__(self) -> str:
        """Return only the name: TFDS logs this string whenever it opens the data set."""
        return self.name


def describe_versions(packages: Iterable[str]) -> str:
    """Return the names of Python packages with their installed versions."""
    return ", ".join(f"{package} {_find_version(package)}" for package in packages)


def _find_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def make_settings(
    settings_class: Callable[..., Settings], values: Mapping[str, object]
) -> Settings:
    """Return `settings_class` with `values` as its fields; lists are converted to tuples."""
    return settings_class(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    )


def make_builder(
    builder_class: Callable[..., Builder],
    settings_class: Callable[..., Settings],
    data_dir: str | pathlib.Path,
    values: Mapping[str, object],
) -> Builder:
    """Return the TFDS builder of a data set in `data_dir`.

    The name of its folder depends on the versions of the packages that determine the documents. So
    if a package changes, the data set is prepared again.

    Args:
        builder_class: class of the data set.
        settings_class: dataclass of its settings, which raises `UserError` for wrong values.
        data_dir: folder of prepared data sets.
        values: fields of the settings. Lists are converted to tuples.
    """
    settings = make_settings(settings_class, values)
    packages = splits.hash_bucket(settings.describe_packages(), 16**8)
    config = Config(name=f"{settings.name}_{packages:08x}", settings=settings)
    return builder_class(data_dir=data_dir, config=config, file_format="array_record")
