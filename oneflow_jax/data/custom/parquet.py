"""Reader of Parquet and Arrow files as Hugging Face `datasets` writes them.

Each row is a record. The module `record` describes which columns are used as images and as text.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from oneflow_jax.data.custom import chat, image_value, packages, record, record_document
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawDocument, Settings, WorkUnit, list_file_units

ARROW_EXTENSIONS = (".arrow",)
EXTENSIONS = (".parquet", *ARROW_EXTENSIONS)

_STRUCT_COLUMNS = (*chat.FIELDS, "document", "texts", "text_list", "image_info", "sentences")
"""Names of columns that the reader uses although their structs have no `bytes` or `path`."""

ROWS_PER_BATCH = 32  # number of rows that are read from a file at a time


class ParquetReader:
    """Reader of Parquet and Arrow files."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List one unit per file. Do not open the files: damaged files could crash the process."""
        packages.require("pyarrow.parquet", "pyarrow", "parquet")
        return list_file_units(settings, EXTENSIONS)

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per row."""
        (name,) = unit.files
        folder = settings.folder
        locate = image_value.make_locator(settings, folder, name)
        with folder.open(name) as file:
            row = 0
            try:
                schema, batches = _open_table(file, name, settings.columns)
                columns = _select_columns(schema, settings.columns)
                unused = tuple(each for each in schema.names if each not in columns)
                for batch in batches:
                    for values in _list_rows(batch, columns):
                        where = f"{name}, row {row:,}"
                        raw = record_document.make_document(
                            where, values, locate, settings.columns, is_row=True
                        )
                        yield dataclasses.replace(raw, unused=raw.unused + unused)
                        row += 1
            except DataError:
                raise
            except Exception as error:  # Arrow raises many types of exceptions.
                message = f"{name}, from row {row:,}: {type(error).__name__}: {error}"
                raise DataError("unreadable file", message) from error


def _open_table(
    file: Any,  # noqa: ANN401 - a file
    name: str,
    fields: tuple[str, ...],
) -> tuple[Any, Iterator[Any]]:
    """Return the schema of a table, and an iterator over batches of its rows."""
    if not name.lower().endswith(ARROW_EXTENSIONS):
        tables = packages.require("pyarrow.parquet", "pyarrow", "parquet")
        table = tables.ParquetFile(file)
        columns = _select_columns(table.schema_arrow, fields)
        return table.schema_arrow, table.iter_batches(
            ROWS_PER_BATCH, columns=columns, use_threads=False
        )
    ipc = packages.require("pyarrow.ipc", "pyarrow", "parquet")
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if is_file:
        table = ipc.open_file(file)
        return table.schema, map(table.get_batch, range(table.num_record_batches))
    table = ipc.open_stream(file)
    return table.schema, iter(table)


def _list_rows(batch: Any, columns: list[str]) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - of pyarrow
    for start in range(0, batch.num_rows, ROWS_PER_BATCH):
        yield from batch.select(columns).slice(start, ROWS_PER_BATCH).to_pylist()


def _select_columns(schema: Any, fields: tuple[str, ...]) -> list[str]:  # noqa: ANN401 - of pyarrow
    """Return the names of the columns to read: images, texts, and structs that hold both."""
    kinds = {field.name: _column_type(field.name, field.type) for field in schema}
    if fields:
        folded = {name.casefold(): name for name in kinds}
        missing = [name for name in fields if name.casefold() not in folded]
        if missing:
            there = ", ".join(kinds)
            raise DataError("unreadable file", f"no column {', '.join(missing)}. Columns: {there}")
        return [folded[name.casefold()] for name in fields]
    if any(kind == "image" for kind in kinds.values()):
        kinds = {name: kind for name, kind in kinds.items() if kind != "bytes"}
    columns = [name for name, kind in kinds.items() if kind]
    if not columns:
        raise DataError("unreadable file", f"no image or text column in {', '.join(kinds)}")
    return columns


def _column_type(name: str, arrow_type: Any) -> str:  # noqa: ANN401 - of pyarrow
    """Return the kind of a column: "image", "bytes", "text", "struct", or "" for other values."""
    arrow_type = _element_type(arrow_type)
    types = packages.require("pyarrow.types", "pyarrow", "parquet")
    if types.is_struct(arrow_type):
        names = {field.name for field in arrow_type}
        if "bytes" in names:
            return "image"
        return "struct" if name.casefold() in _STRUCT_COLUMNS or "path" in names else ""
    is_binary = (
        types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_fixed_size_binary(arrow_type)
        or types.is_binary_view(arrow_type)
    )
    is_string = (
        types.is_string(arrow_type)
        or types.is_large_string(arrow_type)
        or types.is_string_view(arrow_type)
    )
    if (is_binary or is_string) and name.casefold() in record.IMAGE_FIELDS:
        return "image"
    if is_binary and not record.is_text_name(name):
        return "bytes"
    return "text" if is_binary or is_string else ""


def _element_type(arrow_type: Any) -> Any:  # noqa: ANN401 - of pyarrow
    """Unwrap lists, dictionaries (categories) and extension types; return the type inside."""
    types = packages.require("pyarrow.types", "pyarrow", "parquet")
    pyarrow = packages.require("pyarrow", "pyarrow", "parquet")
    while True:
        if isinstance(arrow_type, pyarrow.BaseExtensionType):
            arrow_type = arrow_type.storage_type
        elif (
            types.is_dictionary(arrow_type)
            or types.is_list(arrow_type)
            or types.is_large_list(arrow_type)
            or types.is_fixed_size_list(arrow_type)
            or types.is_list_view(arrow_type)
            or types.is_large_list_view(arrow_type)
        ):
            arrow_type = arrow_type.value_type
        else:
            return arrow_type
