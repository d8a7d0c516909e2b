"""Reader of JSON lines: one record per line, images in separate files.

The module `record` describes the layouts of a record.
"""

import json
from collections.abc import Iterator
from typing import Any

from oneflow_jax import errors
from oneflow_jax.data.custom import image_value, record_document, text_clean
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawDocument, Settings, WorkUnit

EXTENSIONS = (".jsonl", ".ndjson")

MAX_UNIT_BYTES = 4 * 2**20
"""Maximum number of bytes in a work unit."""

TARGET_NUM_UNITS = 32
MIN_UNIT_BYTES = 16 * 2**10
"""Minimum number of bytes in a work unit. Above this minimum, a small data set is divided into
about `TARGET_NUM_UNITS` units, so that all workers have work."""

MAX_LINE_BYTES = 64 * 2**20
"""Maximum number of bytes in a line."""


class JsonlReader:
    """Reader of JSON lines."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List byte ranges; a line belongs to the range in which it begins."""
        folder = settings.folder
        files = settings.list_files(EXTENSIONS)
        sizes = {}
        for name in files:
            with folder.open(name) as file:
                sizes[name] = file.seek(0, 2)
        # The size is a power of two. So when files are added, most units of the other files keep
        # their ranges.
        each = 1 << (sum(sizes.values()) // TARGET_NUM_UNITS).bit_length()
        each = min(MAX_UNIT_BYTES, max(MIN_UNIT_BYTES, each))
        units = [
            WorkUnit((name,), start, min(start + each, size))
            for name, size in sizes.items()
            for start in range(0, size, each)
        ]
        if not units:
            raise errors.UserError(
                f"source.path={settings.path}: no lines found. Give a folder with "
                f"{' or '.join(EXTENSIONS)} files."
            )
        return units

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per line, except for empty lines."""
        folder, (name,) = settings.folder, unit.files
        locate = image_value.make_locator(settings, folder, name)
        with folder.open(name) as file:
            if file.read(2) in text_clean.UTF_16_MARKS:
                raise DataError("unreadable file", f"{name}: it is in UTF-16; save it as UTF-8")
            for start, line in _iter_lines(file, unit):
                where = f"{name}, byte {start:,}"
                if line is None:
                    yield RawDocument(where, error=DataError("line too long"))
                elif line.strip():
                    yield parse_line(settings, where, line, locate)


def _iter_lines(file: Any, unit: WorkUnit) -> Iterator[tuple[int, bytes | None]]:  # noqa: ANN401 - a file
    """Yield the offset and the content of each line that begins in the unit.

    The content of a line of more than `MAX_LINE_BYTES` bytes is None.
    """
    # Start one byte before the unit. If this byte is a newline, a line begins at `unit.start`.
    file.seek(max(unit.start - 1, 0))
    if unit.start:
        _skip_to_newline(file)
    while (start := file.tell()) < unit.stop:
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            return
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            _skip_to_newline(file)
            yield start, None
        else:
            yield start, line.removeprefix(b"\xef\xbb\xbf") if start == 0 else line


def _skip_to_newline(file: Any) -> None:  # noqa: ANN401 - a file
    """Advance to the beginning of the next line."""
    while (piece := file.readline(2**20)) and not piece.endswith(b"\n"):
        pass


def parse_line(
    settings: Settings, location: str, line: bytes, locate: image_value.Locate
) -> RawDocument:
    """Parse a line of JSON and return its document."""
    try:
        # Bytes that are not UTF-8 become surrogates, which `text_clean.clean_text` replaces and
        # counts.
        values = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return RawDocument(location, error=DataError("malformed line", str(error)))
    return record_document.make_document(location, values, locate, settings.columns)
