"""The kinds of own data by name, and how a folder tells which it is."""

import collections
import pathlib

from oneflow_jax import errors
from oneflow_jax.data.custom import image_decode, jsonl, pairs, parquet, tfds, web_pages, webdataset
from oneflow_jax.data.custom.reader import Reader, Settings

KINDS: dict[str, Reader] = {
    "jsonl": jsonl.Jsonl(),
    "webdataset": webdataset.WebDataset(),
    "parquet": parquet.Parquet(),
    "pages": web_pages.Pages(),
    "pairs": pairs.Pairs(),
    "tfds": tfds.Named(),
}

_TOLD_BY = {
    **dict.fromkeys(jsonl.ENDINGS, "jsonl"),
    **dict.fromkeys(webdataset.ENDINGS, "webdataset"),
    **dict.fromkeys(parquet.ENDINGS, "parquet"),
    **dict.fromkeys(web_pages.ENDINGS, "pages"),
}
"""Endings of files that only one kind has."""


def reader(kind: str) -> Reader:
    """The reader of a kind.

    Raises:
        UserError: there is no such kind.
    """
    if kind not in KINDS:
        raise errors.UserError(
            f"source.kind={kind!r} is unknown; choose from auto, {', '.join(KINDS)}"
        )
    return KINDS[kind]


def kind(settings: Settings) -> str:
    """The kind of data at `settings.path`: as configured, or told by the files' names.

    Raises:
        UserError: there is nothing at that path, no file that tells, or files of several kinds.
    """
    if settings.kind != "auto":
        reader(settings.kind)
        return settings.kind
    path = pathlib.Path(settings.path).expanduser()
    if not path.exists():
        raise errors.UserError(f"source.path={settings.path}: there is no such file or folder")
    if (path / tfds.INFO).exists():
        return "tfds"
    files = settings.listed(tuple(_TOLD_BY))
    found = collections.Counter(
        told for name in files for ending, told in _TOLD_BY.items() if name.lower().endswith(ending)
    )
    if len(found) == 1:
        return next(iter(found))
    if not found and settings.listed(image_decode.ENDINGS):
        return "pairs"
    if not found:
        raise errors.UserError(
            f"source.path={settings.path}: no file there tells what kind of data it is (endings "
            f"{', '.join(_TOLD_BY)}): look at docs/own_data.md, or set source.kind"
        )
    counts = ", ".join(f"{count} of {name!r}" for name, count in found.items())
    raise errors.UserError(
        f"source.path={settings.path} holds files of several kinds ({counts}): set source.kind, or "
        "give a folder of one kind"
    )
