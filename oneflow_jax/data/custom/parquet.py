"""Parquet files as Hugging Face's `datasets` writes them: pictures as {bytes, path}, words as text.

Columns `texts` and `images` that are lists are taken as OBELICS has them, by turns. Else columns
are taken in the order of `source.fields`; without it all pictures, then `text`, `caption` and the
like, or if there is none of these names, all columns of text.
"""

from collections.abc import Iterator
from typing import Any

from oneflow_jax import errors
from oneflow_jax.data.custom import packages
from oneflow_jax.data.custom.errors import Fault
from oneflow_jax.data.custom.reader import Picture, Raw, Settings, Unit, stored
from oneflow_jax.data.custom.sandbox import Folder

ENDINGS = (".parquet",)
NAMES = ("text", "texts", "caption", "captions", "title", "description", "sentence")
"""Columns of words that are taken before others."""

AT_ONCE = 32  # rows

Part = str | bytes | Picture | Fault


class Parquet:
    """Parquet files; see above."""

    def units(self, settings: Settings) -> list[Unit]:
        """A file each. Nothing is read: a process that may die of it does that."""
        packages.needed("pyarrow.parquet", "pyarrow", "parquet")
        files = settings.listed(ENDINGS)
        if not files:
            raise errors.UserError(f"source.path={settings.path}: no file there ends in .parquet")
        return [Unit((name,)) for name in files]

    def read(self, settings: Settings, unit: Unit) -> Iterator[Raw]:
        """A document a row."""
        tables = packages.needed("pyarrow.parquet", "pyarrow", "parquet")
        (name,) = unit.files
        folder = settings.folder
        with folder.opened(name) as file:
            row = 0
            try:
                table = tables.ParquetFile(file)
                columns = _columns(table.schema_arrow, settings.fields)
                for batch in table.iter_batches(AT_ONCE, columns=columns, use_threads=False):
                    for values in batch.to_pylist():
                        yield Raw(
                            f"{name}, row {row:,}", tuple(_parts(values, columns, folder, name))
                        )
                        row += 1
            except Fault:
                raise
            except Exception as error:  # Arrow has many kinds.
                message = f"{name}, from row {row:,}: {type(error).__name__}: {error}"
                raise Fault("unreadable file", message) from error


def _columns(schema: Any, fields: tuple[str, ...]) -> list[str]:  # noqa: ANN401 - of pyarrow
    """Names of the columns to take, in reading order."""
    kinds = {field.name: _kind(field.type) for field in schema}
    if fields:
        missing = [name for name in fields if name not in kinds]
        if missing:
            there = ", ".join(kinds)
            raise Fault("unreadable file", f"no column {', '.join(missing)}; there are: {there}")
        return list(fields)
    pictures = [name for name, kind in kinds.items() if kind == "picture"]
    words = [name for name, kind in kinds.items() if kind == "words"]
    if {"texts", "images"} <= kinds.keys():
        return ["images", "texts"]
    named = [name for name in NAMES if name in words]
    if not pictures and not words:
        raise Fault("unreadable file", f"no column of pictures or words in {', '.join(kinds)}")
    return pictures + (named or words)


def _kind(arrow: Any) -> str:  # noqa: ANN401 - of pyarrow
    """What a column holds: "picture", "words", or "" for neither."""
    types = packages.needed("pyarrow.types", "pyarrow", "parquet")
    while types.is_list(arrow) or types.is_large_list(arrow):
        arrow = arrow.value_type
    if types.is_struct(arrow):
        return "picture" if "bytes" in {field.name for field in arrow} else ""
    if types.is_binary(arrow) or types.is_large_binary(arrow):
        return "picture"
    return "words" if types.is_string(arrow) or types.is_large_string(arrow) else ""


def _parts(values: dict[str, Any], columns: list[str], folder: Folder, name: str) -> Iterator[Part]:
    texts, images = values.get("texts"), values.get("images")
    if isinstance(texts, list) and isinstance(images, list) and len(texts) == len(images):
        for text, image in zip(texts, images, strict=True):
            yield from _part(image, folder, name, path=True)
            yield from _part(text, folder, name)
        return
    for column in columns:
        value = values[column]
        for each in value if isinstance(value, list) else [value]:
            yield from _part(each, folder, name)


def _part(value: Any, folder: Folder, name: str, *, path: bool = False) -> Iterator[Part]:  # noqa: ANN401 - whatever a cell holds
    """What a cell holds, if anything; words that are the `path` of a picture are one."""
    match value:
        case None:
            return
        case {"bytes": bytes(data)}:
            yield Picture(str(value.get("path") or ""), lambda: data)
        case {"path": str(where)}:
            yield stored(folder, where, name)
        case bytes(data):
            yield Picture("", lambda: data)
        case str(text):
            yield stored(folder, text, name) if path else text
        case _:
            yield Fault("not words", repr(value)[:80])
