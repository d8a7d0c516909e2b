"""Data sets of TFDS that are prepared already, by name or by folder.

Features are taken in the order of `source.fields`; without it pictures first, then words and the
names of classes.
"""

import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from oneflow_jax import errors
from oneflow_jax.data.custom.errors import Fault
from oneflow_jax.data.custom.reader import Picture, Raw, Settings, Unit

INFO = "dataset_info.json"

AT_ONCE = 1_000
"""Examples in a unit."""


class Named:
    """Data sets of TFDS; see above."""

    def units(self, settings: Settings) -> list[Unit]:
        """Ranges of examples."""
        builder = _builder(settings)
        if settings.split not in builder.info.splits:
            known = ", ".join(builder.info.splits)
            raise errors.UserError(
                f"source.split={settings.split!r}: {settings.path} has {known or 'no splits'}"
            )
        taken = _taken(builder, settings)
        if not taken:
            raise errors.UserError(
                f"source.fields={settings.fields}: {settings.path} has "
                f"{', '.join(builder.info.features)}, none of it pictures or words"
            )
        count = builder.info.splits[settings.split].num_examples
        info = os.path.join(builder.data_dir, INFO)
        return [Unit((info,), at, min(at + AT_ONCE, count)) for at in range(0, count, AT_ONCE)]

    def read(self, settings: Settings, unit: Unit) -> Iterator[Raw]:
        """A document an example."""
        builder = _builder(settings)
        taken = _taken(builder, settings)
        examples = builder.as_data_source(settings.split)
        for index in range(unit.start, unit.stop):
            where = f"{settings.path}, {settings.split} {index:,}"
            try:
                values = examples[index]
            except (RuntimeError, ValueError, OSError, SyntaxError) as error:
                yield Raw(where, fault=Fault("unreadable file", f"{type(error).__name__}: {error}"))
                continue
            parts = [
                part for name, feature in taken.items() for part in _parts(feature, values[name])
            ]
            yield Raw(where, tuple(parts))


def _builder(settings: Settings) -> tfds.core.DatasetBuilder:
    path = pathlib.Path(settings.path).expanduser()
    if path.exists():
        try:
            return tfds.builder_from_directory(path)
        except (FileNotFoundError, ValueError, OSError) as error:
            raise errors.UserError(
                f"source.path={settings.path} is no data set prepared by TFDS: {error}"
            ) from error
    try:
        builder = tfds.builder(settings.path, try_gcs=False, file_format="array_record")
    except (tfds.core.registered.DatasetNotFoundError, ValueError, ImportError) as error:
        raise errors.UserError(
            f"source.path={settings.path}: TFDS knows no such data set, and there is no such "
            f"folder ({str(error).splitlines()[0][:160]})"
        ) from error
    if not builder.is_prepared():
        raise errors.UserError(
            f"source.path={settings.path} is not prepared, and nothing is downloaded here: run "
            f"tfds.builder({settings.path!r}, file_format='array_record').download_and_prepare()"
        )
    return builder


def _taken(builder: tfds.core.DatasetBuilder, settings: Settings) -> dict[str, Any]:
    """The features to take, in reading order."""
    usable = {name: feature for name, feature in builder.info.features.items() if _kind(feature)}
    if settings.fields:
        return {name: usable[name] for name in settings.fields if name in usable}
    return dict(sorted(usable.items(), key=lambda pair: _kind(pair[1]) != "picture"))


def _kind(feature: Any) -> str:  # noqa: ANN401 - of TFDS
    inner = getattr(feature, "feature", feature)
    if isinstance(inner, tfds.features.Image):
        return "picture"
    return "words" if isinstance(inner, tfds.features.Text | tfds.features.ClassLabel) else ""


def _parts(feature: Any, value: Any) -> Iterator[str | bytes | Picture]:  # noqa: ANN401 - of TFDS
    inner = getattr(feature, "feature", None)
    if inner is not None:
        for each in value:
            yield from _parts(inner, each)
    elif isinstance(feature, tfds.features.Image):
        yield Picture("", lambda: _png(value))
    elif isinstance(feature, tfds.features.ClassLabel):
        if value >= 0:  # -1: not known
            yield feature.int2str(int(value)).replace("_", " ")
    else:
        yield value


def _png(value: np.ndarray) -> bytes:
    file = io.BytesIO()
    grey = value.ndim == 3 and value.shape[2] == 1
    PIL.Image.fromarray(value[:, :, 0] if grey else value).save(file, "PNG")
    return file.getvalue()
