"""Formats of custom data by name, and detection of the format of a folder."""

import collections
import pathlib

from oneflow_jax import errors
from oneflow_jax.data.custom import image_decode, jsonl, pairs, parquet, tfds, web_pages, webdataset
from oneflow_jax.data.custom.reader import FormatReader, Settings
from oneflow_jax.data.custom.sandbox import SandboxedFolder

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
"""Format of each file extension that only one format uses."""


def get_reader(kind: str) -> FormatReader:
    """Return the reader of a format.

    Raises:
        UserError: the format is unknown.
    """
    errors.check_one_of("source.format", kind, READERS)
    return READERS[kind]


def open_root(settings: Settings) -> SandboxedFolder:
    """Return the folder that the files of work units are relative to.

    Raises:
        UserError: the data set of format "tfds" does not exist.
    """
    if settings.format == "tfds":
        return SandboxedFolder.from_path(tfds.locate(settings))
    return settings.folder


def detect_format(settings: Settings) -> str:
    """Return the format of the data at `settings.path`: configured, or detected from file names.

    Raises:
        UserError: the path does not exist, or it has no files of a known format, or files of
            several formats.
    """
    errors.check_one_of("source.format", settings.format, ("auto", *READERS))
    if settings.format != "auto":
        return settings.format
    path = pathlib.Path(settings.path).expanduser()
    if not path.exists():
        raise errors.UserError(f"source.path={settings.path}: no such file or folder")
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
            f"source.path={settings.path}: no file has a known extension "
            f"({', '.join(_KIND_BY_EXTENSION)}). See docs/own_data.md, or set source.format."
        )
    counts = ", ".join(f"{count} of {name!r}" for name, count in found.items())
    raise errors.UserError(
        f"source.path={settings.path}: the folder has files of several formats ({counts}). Set "
        "source.format, or give a folder of one format."
    )
