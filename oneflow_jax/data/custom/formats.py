"""Formats of custom data by name, and detection of the format of a folder."""

import collections
from collections.abc import Mapping, Sequence

from etils import epath

from oneflow_jax import errors
from oneflow_jax.data.custom import (
    caption_list,
    csv_table,
    image_decode,
    json_file,
    jsonl,
    pairs,
    parquet,
    tfds,
    web_pages,
    webdataset,
)
from oneflow_jax.data.custom.reader import FormatReader, Settings
from oneflow_jax.data.custom.sandbox import SandboxedFolder

READERS: dict[str, FormatReader] = {
    "jsonl": jsonl.JsonlReader(),
    "webdataset": webdataset.WebDatasetReader(),
    "parquet": parquet.ParquetReader(),
    "pages": web_pages.WebPagesReader(),
    "pairs": pairs.PairsReader(),
    "csv": csv_table.CsvReader(),
    "json": json_file.JsonFileReader(),
    "tfds": tfds.TfdsReader(),
}

_KIND_BY_EXTENSION = {
    **dict.fromkeys(jsonl.EXTENSIONS, "jsonl"),
    **dict.fromkeys(webdataset.EXTENSIONS, "webdataset"),
    **dict.fromkeys(parquet.EXTENSIONS, "parquet"),
    **dict.fromkeys(web_pages.EXTENSIONS, "pages"),
}
"""Format by file extension, for extensions that only one format uses."""

_COMPRESSED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
"""Extensions of compressed files."""


def get_reader(kind: str) -> FormatReader:
    """Return the reader of a format.

    Raises:
        UserError: the format is unknown.
    """
    errors.check_one_of("source.format", kind, READERS)
    return READERS[kind]


def open_root(settings: Settings) -> SandboxedFolder:
    """Return the root folder of the data. Paths in work units are relative to this folder.

    Raises:
        UserError: the data set of format "tfds" does not exist.
    """
    if settings.format == "tfds":
        return SandboxedFolder.from_path(tfds.locate(settings))
    return settings.folder


def detect_format(settings: Settings) -> str:
    """Return `settings.format`. If this is "auto", detect the format from the file names.

    Raises:
        UserError: `settings.format` is unknown, the path does not exist, its files have no known
            format or several formats, or it holds several revisions of a data set.
    """
    errors.check_one_of("source.format", settings.format, ("auto", *READERS))
    if settings.format != "auto":
        return settings.format
    path = settings.location
    if not path.exists():
        raise errors.UserError(
            f"source.path={settings.path}: there is no such file or folder. "
            "Give the folder of your data."
        )
    if _is_tfds(path):
        return "tfds"
    _check_snapshots(settings)
    format_counts = _count_formats(settings)
    if len(format_counts) == 1:
        return next(iter(format_counts))
    if not format_counts:
        raise errors.UserError(
            f"source.path={settings.path}: no file has a known extension "
            f"({', '.join(_KIND_BY_EXTENSION)}).{_describe_links(settings)}"
            f"{_describe_compressed(settings)} "
            "See docs/own_data.md, or set source.format."
        )
    counts = ", ".join(f"{count} of {name!r}" for name, count in format_counts.items())
    raise errors.UserError(
        f"source.path={settings.path}: the folder has files of several formats ({counts}). Set "
        "source.format, or give a folder of one format."
    )


def _is_tfds(path: epath.Path) -> bool:
    """Return whether TFDS wrote the folder.

    The file `dataset_info.json` alone does not show this, since Hugging Face `datasets` also writes
    a file of this name.
    """
    return (path / tfds.INFO_FILE).exists() and (path / "features.json").exists()


def _check_snapshots(settings: Settings) -> None:
    """Check that the path is not a folder of a Hugging Face cache with several revisions.

    Raises:
        UserError: the folder has several revisions, so each document would be read several times.
    """
    snapshots = sorted(settings.location.glob("snapshots/*"))
    if len(snapshots) > 1 and settings.glob == "*":
        raise errors.UserError(
            f"source.path={settings.path}: the folder has {len(snapshots)} revisions of one data "
            f"set. Give one of them, such as {snapshots[-1]}."
        )


def _count_formats(settings: Settings) -> Mapping[str, int]:
    """Count the files of each format in which the folder can be read.

    Readme and license files do not count. CSV and JSON files and lists of captions count only if
    the folder has no file of another format, and fewer than half of the images have a text or JSON
    file of the same name.
    """
    # The empty extension matches all files of a folder, and also a single file.
    names = [name for name in settings.list_files(("",)) if not pairs.is_about_the_data(name)]
    format_counts = collections.Counter(
        known
        for name in names
        for ending, known in _KIND_BY_EXTENSION.items()
        if name.lower().endswith(ending)
    )
    if format_counts:
        return format_counts
    groups = pairs.group_names([name for name in names if _ends(name, pairs.EXTENSIONS)])
    images = [name for name in names if _ends(name, image_decode.EXTENSIONS)]
    described = [group for group in groups.values() if len(group) > 1 and pairs.has_text(group)]
    if 2 * len(described) >= len(images) > 0:
        return {"pairs": len(groups)}
    tables = collections.Counter(
        known
        for name in names
        for ending, known in (
            *dict.fromkeys(csv_table.EXTENSIONS, "csv").items(),
            (".json", "json"),
        )
        if name.lower().endswith(ending)
    )
    tables.update(dict.fromkeys(caption_list.find_lists(settings.folder, names), "csv").values())
    return tables or ({"pairs": len(groups)} if images else {})


def _ends(name: str, endings: Sequence[str]) -> bool:
    return name.lower().endswith(tuple(endings))


def _describe_links(settings: Settings) -> str:
    """Return a sentence about links that the program does not follow, or "" without such links."""
    links = [path for path, obstacle in settings.folder.walk() if "link" in obstacle]
    if not links:
        return ""
    return (
        f" {len(links)} of its entries are links that lead out of the folder or to folders, such "
        f"as {links[0]!r}. Such links are not followed. Copy the files with cp -RL, or give the "
        "folder to which the links lead."
    )


def _describe_compressed(settings: Settings) -> str:
    """Return a sentence about compressed files, or "" if the folder has none."""
    names = settings.list_files(_COMPRESSED)
    if not names:
        return ""
    return f" {len(names)} of its files are compressed, such as {names[0]!r}. Unpack them."
