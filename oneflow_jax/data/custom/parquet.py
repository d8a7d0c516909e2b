"""Reader of Parquet files as Hugging Face `datasets` writes them: images as {bytes, path} structs.

If `texts` and `images` are both list columns, they are interleaved as in OBELICS. Otherwise columns
are read in the order of `source.columns`. If that is empty, all image columns come first, and then
the text columns with a name in `TEXT_COLUMNS`, or all text columns if none has such a name.
"""

from collections.abc import Iterator
from typing import Any

from oneflow_jax import errors
from oneflow_jax.data.custom import packages
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawDocument, RawImage, Settings, WorkUnit, locate_image
from oneflow_jax.data.custom.sandbox import SandboxedFolder

EXTENSIONS = (".parquet",)
TEXT_COLUMNS = ("text", "texts", "caption", "captions", "title", "description", "sentence")
"""Text columns that are used in preference to others."""

ROWS_PER_BATCH = 32  # rows that are read from a file at a time

Part = str | bytes | RawImage | DataError


class ParquetReader:
    """Reader of Parquet files; the columns it uses are described in the module."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List one unit per file. Files are only opened in worker processes, which may crash."""
        packages.require("pyarrow.parquet", "pyarrow", "parquet")
        files = settings.list_files(EXTENSIONS)
        if not files:
            raise errors.UserError(f"source.path={settings.path}: no .parquet file found")
        return [WorkUnit((name,)) for name in files]

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per row."""
        tables = packages.require("pyarrow.parquet", "pyarrow", "parquet")
        (name,) = unit.files
        folder = settings.folder
        with folder.open(name) as file:
            row = 0
            try:
                table = tables.ParquetFile(file)
                columns = _select_columns(table.schema_arrow, settings.columns)
                for batch in table.iter_batches(ROWS_PER_BATCH, columns=columns, use_threads=False):
                    for values in batch.to_pylist():
                        yield RawDocument(
                            f"{name}, row {row:,}",
                            tuple(_row_to_parts(values, columns, folder, name)),
                        )
                        row += 1
            except DataError:
                raise
            except Exception as error:  # Arrow raises many types of exceptions.
                message = f"{name}, from row {row:,}: {type(error).__name__}: {error}"
                raise DataError("unreadable file", message) from error


def _select_columns(schema: Any, fields: tuple[str, ...]) -> list[str]:  # noqa: ANN401 - of pyarrow
    """Return the names of the columns to read, in reading order."""
    kinds = {field.name: _column_type(field.type) for field in schema}
    if fields:
        missing = [name for name in fields if name not in kinds]
        if missing:
            there = ", ".join(kinds)
            raise DataError("unreadable file", f"no column {', '.join(missing)}. Columns: {there}")
        return list(fields)
    pictures = [name for name, kind in kinds.items() if kind == "picture"]
    words = [name for name, kind in kinds.items() if kind == "words"]
    if {"texts", "images"} <= kinds.keys():
        return ["images", "texts"]
    named = [name for name in TEXT_COLUMNS if name in words]
    if not pictures and not words:
        raise DataError("unreadable file", f"no image or text column in {', '.join(kinds)}")
    return pictures + (named or words)


def _column_type(arrow_type: Any) -> str:  # noqa: ANN401 - of pyarrow
    """Return the content type of a column: "picture" (image), "words" (text), or ""."""
    types = packages.require("pyarrow.types", "pyarrow", "parquet")
    while types.is_list(arrow_type) or types.is_large_list(arrow_type):
        arrow_type = arrow_type.value_type
    if types.is_struct(arrow_type):
        return "picture" if "bytes" in {field.name for field in arrow_type} else ""
    if types.is_binary(arrow_type) or types.is_large_binary(arrow_type):
        return "picture"
    return "words" if types.is_string(arrow_type) or types.is_large_string(arrow_type) else ""


def _row_to_parts(
    values: dict[str, Any], columns: list[str], folder: SandboxedFolder, name: str
) -> Iterator[Part]:
    texts, images = values.get("texts"), values.get("images")
    if isinstance(texts, list) and isinstance(images, list) and len(texts) == len(images):
        for text, image in zip(texts, images, strict=True):
            yield from _cell_to_parts(image, folder, name, path=True)
            yield from _cell_to_parts(text, folder, name)
        return
    for column in columns:
        value = values[column]
        for each in value if isinstance(value, list) else [value]:
            yield from _cell_to_parts(each, folder, name)


def _cell_to_parts(
    value: object, folder: SandboxedFolder, name: str, *, path: bool = False
) -> Iterator[Part]:
    """Yield the parts of a cell; if `path` is set, text is the path of an image."""
    match value:
        case None:
            return
        case {"bytes": bytes(data)}:
            yield RawImage(str(value.get("path") or ""), lambda: data)
        case {"path": str(where)}:
            yield locate_image(folder, where, name)
        case bytes(data):
            yield RawImage("", lambda: data)
        case str(text):
            yield locate_image(folder, text, name) if path else text
        case _:
            yield DataError("not words", repr(value)[:80])
