"""Reader of CSV and TSV files and lists of captions: one document per row, images in files."""

import csv
import io
import itertools
from collections.abc import Iterator
from typing import Any

from oneflow_jax import errors
from oneflow_jax.data.custom import caption_list, image_value, record, record_document
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawDocument, Settings, WorkUnit

EXTENSIONS = (".csv", ".tsv")
DELIMITERS = ",;\t|"
"""Possible separators of columns; the reader uses the most frequent one in the first line."""

MAX_CELL_CHARACTERS = 64 * 2**20


class CsvReader:
    """Reader of CSV and TSV files, and of lists of captions."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List one unit per file."""
        lists = caption_list.find_lists(settings.folder, settings.list_files(("",)))
        files = sorted({*settings.list_files(EXTENSIONS), *lists})
        if not files:
            raise errors.UserError(
                f"source.path={settings.path}: no {' or '.join(EXTENSIONS)} file and no list of "
                "captions found. Give a folder with one, or change source.format or source.glob."
            )
        return [WorkUnit((name,)) for name in files]

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per row."""
        (name,) = unit.files
        folder = settings.folder
        locate = image_value.make_locator(settings, folder, name)
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        with folder.open(name) as file:
            header, rows = _open_table(file, name)
            if not settings.columns and not any(map(record.is_known_name, header)):
                message = f"{name}: no column of images or text in {', '.join(header)}"
                raise DataError("unreadable file", message)
            number = 0
            try:
                for number, row in enumerate(rows, 1):
                    where = f"{name}, row {number:,}"
                    if len(row) == len(header):
                        values = {key: cell or None for key, cell in zip(header, row, strict=True)}
                        yield record_document.make_document(
                            where, values, locate, settings.columns, is_row=True
                        )
                    elif row:
                        message = f"{len(row)} cells, but the header has {len(header)}"
                        yield RawDocument(where, error=DataError("malformed line", message))
            except csv.Error as error:
                message = f"{name}, from row {number + 1:,}: {error}"
                raise DataError("unreadable file", message) from error


def _open_table(
    file: Any,  # noqa: ANN401 - a file
    name: str,
) -> tuple[list[str], Iterator[list[str]]]:
    """Return the names of the columns, and an iterator over the rows without the header.

    Raises:
        DataError: the header is malformed.
    """
    is_utf_16 = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    file.seek(0)
    # Bytes that are not UTF-8 become surrogates, which `text_clean.clean_text` replaces and counts.
    text = (
        io.TextIOWrapper(file, "utf-16", "replace", newline="")
        if is_utf_16
        else io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    )
    pieces = iter(lambda: text.readline(MAX_CELL_CHARACTERS), "")
    first = next(pieces, "")
    if in_list := caption_list.find_delimiter(first):
        rows = caption_list.iter_rows(itertools.chain([first], pieces), in_list)
        row = next(rows)
        return caption_list.name_columns(len(row)), itertools.chain([row], rows)
    delimiter = max(DELIMITERS, key=first.count)
    rows = csv.reader(itertools.chain([first], pieces), delimiter=delimiter)
    try:
        return [cell.strip() for cell in next(rows, [])], rows
    except csv.Error as error:
        raise DataError("unreadable file", f"{name}, the header: {error}") from error
