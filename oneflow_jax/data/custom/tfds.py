"""Reader of a data set that TFDS has already prepared; the user gives its name or its folder.

Features are read in the order of `source.columns`. If `source.columns` is empty, images come first,
then texts and class names.
"""

import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from oneflow_jax import errors
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawDocument, RawImage, Settings, WorkUnit
from oneflow_jax.runtime import storage

INFO_FILE = "dataset_info.json"

EXAMPLES_PER_UNIT = 1_000
"""Number of examples in a work unit."""


class TfdsReader:
    """Reader of prepared TFDS data sets."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List units of up to `EXAMPLES_PER_UNIT` successive examples."""
        builder = _open_builder(settings)
        errors.check_one_of("source.split", settings.split, builder.info.splits)
        taken = _select_features(builder, settings)
        if not taken:
            raise errors.UserError(
                f"source.columns={settings.columns}: no image or text among them. The features of "
                f"{settings.path} are {', '.join(builder.info.features)}."
            )
        split = builder.info.splits[settings.split]
        count, files = split.num_examples, (INFO_FILE, *sorted(split.filenames))
        return [
            WorkUnit(files, at, min(at + EXAMPLES_PER_UNIT, count))
            for at in range(0, count, EXAMPLES_PER_UNIT)
        ]

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per example."""
        builder = _open_builder(settings)
        taken = _select_features(builder, settings)
        examples = builder.as_data_source(settings.split)
        for index in range(unit.start, unit.stop):
            where = f"{settings.path}, {settings.split} {index:,}"
            try:
                values = examples[index]
            except (RuntimeError, ValueError, OSError, SyntaxError) as error:
                yield RawDocument(
                    where, error=DataError("unreadable file", f"{type(error).__name__}: {error}")
                )
                continue
            parts = [
                part for name, feature in taken.items() for part in _to_parts(feature, values[name])
            ]
            unused = tuple(name for name in builder.info.features if name not in taken)
            yield RawDocument(where, tuple(parts), None, tuple(taken), unused)


def locate(settings: Settings) -> str:
    """Return the folder of the data set.

    Raises:
        UserError: the data set does not exist.
    """
    return str(_open_builder(settings).data_dir)


def _open_builder(settings: Settings) -> tfds.core.DatasetBuilder:
    path = pathlib.Path(settings.path).expanduser()
    if path.exists():
        try:
            # Escape the path: TFDS would take a local path such as /gs/x for that of a bucket.
            return tfds.builder_from_directory(storage.escape_local(str(path)))
        except (FileNotFoundError, ValueError, OSError) as error:
            raise errors.UserError(
                f"source.path={settings.path} is not a data set prepared by TFDS: {error}"
            ) from error
    try:
        builder = tfds.builder(settings.path, try_gcs=False, file_format="array_record")
    except (tfds.core.registered.DatasetNotFoundError, ValueError, ImportError) as error:
        raise errors.UserError(
            f"source.path={settings.path}: neither a folder nor a data set that TFDS knows "
            f"({str(error).splitlines()[0][:160]})"
        ) from error
    if not builder.is_prepared():
        raise errors.UserError(
            f"source.path={settings.path}: the data set is not prepared. Run "
            f"tfds.builder({settings.path!r}, file_format='array_record').download_and_prepare()."
        )
    return builder


def _select_features(builder: tfds.core.DatasetBuilder, settings: Settings) -> dict[str, Any]:
    """Return the features to read, in reading order."""
    usable = {
        name: feature for name, feature in builder.info.features.items() if _feature_type(feature)
    }
    if settings.columns:
        return {name: usable[name] for name in settings.columns if name in usable}
    return dict(sorted(usable.items(), key=lambda pair: _feature_type(pair[1]) != "picture"))


def _feature_type(feature: Any) -> str:  # noqa: ANN401 - of TFDS
    inner = getattr(feature, "feature", feature)
    if isinstance(inner, tfds.features.Image):
        return "picture"
    return "words" if isinstance(inner, tfds.features.Text | tfds.features.ClassLabel) else ""


def _to_parts(feature: Any, value: Any) -> Iterator[str | bytes | RawImage]:  # noqa: ANN401 - of TFDS
    inner = getattr(feature, "feature", None)
    if inner is not None:
        for each in value:
            yield from _to_parts(inner, each)
    elif isinstance(feature, tfds.features.Image):
        yield RawImage("", lambda: _to_png(value))
    elif isinstance(feature, tfds.features.ClassLabel):
        if value >= 0:  # -1 marks an unknown class
            yield feature.int2str(int(value)).replace("_", " ")
    else:
        yield value


def _to_png(value: np.ndarray) -> bytes:
    file = io.BytesIO()
    grey = value.ndim == 3 and value.shape[2] == 1
    PIL.Image.fromarray(value[:, :, 0] if grey else value).save(file, "PNG")
    return file.getvalue()
