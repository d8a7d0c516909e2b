"""The kinds of own data by name, and how a folder tells which it is."""

import collections
import pathlib

from oneflow_jax import errors
from oneflow_jax.data.custom import image_decode, jsonl, pairs, parquet, tfds, web_pages, webdataset
from oneflow_jax.data.custom.reader import FormatReader, Settings

READERS: dict[str, FormatReader] = {
    "jsonl": jsonl.JsonlReader(),
    "webdataset": webdataset.WebDatasetReader(),
    "parquet": parquet.ParquetReader(),
    "pages": web_pages.WebPagesReader(),
    "pairs": pairs.PairsReader(),
    "tfds": tfds.TfdsReader(),
}

_KIND_BY_EXTENSION = {
    **dict.fromkeys(jsonl.EXTENSIONS, "jsonl"),
    **dict.fromkeys(webdataset.EXTENSIONS, "webdataset"),
    **dict.fromkeys(parquet.EXTENSIONS, "parquet"),
    **dict.fromkeys(web_pages.EXTENSIONS, "pages"),
}
"""Endings of files that only one kind has."""


def get_reader(kind: str) -> FormatReader:
    """The reader of a kind.

    Raises:
        UserError: there is no such kind.
    """
    if kind not in READERS:
        raise errors.UserError(
            f"source.kind={kind!r} is unknown; choose from auto, {', '.join(READERS)}"
        )
    return READERS[kind]


def detect_format(settings: Settings) -> str:
    """The kind of data at `settings.path`: as configured, or told by the files' names.

    Raises:
        UserError: there is nothing at that path, no file that tells, or files of several kinds.
    """
    if settings.kind != "auto":
        get_reader(settings.kind)
        return settings.kind
    path = pathlib.Path(settings.path).expanduser()
    if not path.exists():
        raise errors.UserError(f"source.path={settings.path}: there is no such file or folder")
    if (path / tfds.INFO_FILE).exists():
        return "tfds"
    files = settings.list_files(tuple(_KIND_BY_EXTENSION))
    found = collections.Counter(
        told
        for name in files
        for ending, told in _KIND_BY_EXTENSION.items()
        if name.lower().endswith(ending)
    )
    if len(found) == 1:
        return next(iter(found))
    if not found and settings.list_files(image_decode.EXTENSIONS):
        return "pairs"
    if not found:
        raise errors.UserError(
            f"source.path={settings.path}: no file there tells what kind of data it is (endings "
            f"{', '.join(_KIND_BY_EXTENSION)}): look at docs/own_data.md, or set source.kind"
        )
    counts = ", ".join(f"{count} of {name!r}" for name, count in found.items())
    raise errors.UserError(
        f"source.path={settings.path} holds files of several kinds ({counts}): set source.kind, or "
        "give a folder of one kind"
    )
