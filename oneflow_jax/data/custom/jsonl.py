"""Reader of JSON lines: one document per line, images in separate files, three layouts.

{"document": [{"text": "a cat"}, {"image": "images/cat.png"}]}     ours; the list alone, or one
                                                                   {"text": ..., "image": ...}
{"text_list": [...], "image_info": [{"image_name": ..., "matched_text_index": ...}]}     MMC4
{"texts": ["a cat", null], "images": [null, "cat.png"]}                               OBELICS
"""

import json
from collections.abc import Iterator
from typing import Any

from oneflow_jax import errors
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawDocument, RawImage, Settings, WorkUnit, locate_image
from oneflow_jax.data.custom.sandbox import SandboxedFolder

EXTENSIONS = (".jsonl", ".ndjson")

MAX_UNIT_BYTES = 4 * 2**20
"""Maximum number of bytes in a work unit."""

TARGET_NUM_UNITS = 32
MIN_UNIT_BYTES = 16 * 2**10
"""Minimum number of bytes in a work unit. Small data sets are divided into `TARGET_NUM_UNITS` units
if possible, so that all workers have work."""

MAX_LINE_BYTES = 64 * 2**20
"""Maximum number of bytes in a line."""

Part = str | bytes | RawImage | DataError


class JsonlReader:
    """Reader of JSON lines; the layouts are in the docstring of the module."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List byte ranges; a line belongs to the range in which it begins."""
        folder = settings.folder
        files = settings.list_files(EXTENSIONS)
        sizes = {}
        for name in files:
            with folder.open(name) as file:
                sizes[name] = file.seek(0, 2)
        # A power of two, so that most units of unchanged files stay the same when files are added.
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
        """Yield one document per line; empty lines are skipped."""
        folder, (name,) = settings.folder, unit.files
        with folder.open(name) as file:
            for start, line in _iter_lines(file, unit):
                where = f"{name}, byte {start:,}"
                if line is None:
                    yield RawDocument(where, error=DataError("line too long"))
                elif line.strip():
                    yield _parse_line(settings, folder, name, where, line)


def _iter_lines(file: Any, unit: WorkUnit) -> Iterator[tuple[int, bytes | None]]:  # noqa: ANN401 - a file
    """Yield the offset and content of lines that begin in the unit; None for a line too long."""
    # Start one byte before the unit: if it is a newline, a line begins at `unit.start`.
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


def _parse_line(
    settings: Settings, folder: SandboxedFolder, name: str, location: str, line: bytes
) -> RawDocument:
    try:
        # Bytes that are not UTF-8 become surrogates, which `text_clean.clean_text` counts.
        found = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return RawDocument(location, error=DataError("malformed line", str(error)))
    try:
        parts = _parse_parts(found)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        return RawDocument(
            location, error=DataError("unknown layout", f"{type(error).__name__}: {error}")
        )

    def picture(path: object) -> Part:
        if settings.image_root:
            return locate_image(folder, path, f"{settings.image_root}/.")
        return locate_image(folder, path, name)

    return RawDocument(
        location, tuple(value if kind == "text" else picture(value) for kind, value in parts)
    )


def _parse_parts(data: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - any JSON value
    """Return the parts as ("text", words) and ("image", path), in reading order."""
    if isinstance(data, dict) and "text_list" in data:
        return _parse_mmc4(data)
    if isinstance(data, dict) and "texts" in data:
        return _parse_obelics(data)
    if isinstance(data, dict) and "document" in data:
        data = data["document"]
    items = [{key: value} for key, value in data.items()] if isinstance(data, dict) else data
    if not isinstance(items, list):
        raise TypeError(f"a {type(data).__name__} is not a document")
    parts = []
    for item in items:
        if isinstance(item, str):
            parts.append(("text", item))
            continue
        parts += [(key, item[key]) for key in item if key in ("text", "image")]
    if items and not parts:
        raise KeyError("neither text nor image")
    return parts


def _parse_mmc4(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """Parse the MMC4 layout, with each image before the sentence that it was matched with."""
    before: dict[int, list[Any]] = {}
    for picture in data.get("image_info") or []:
        at = picture.get("matched_text_index", 0)
        if not isinstance(at, int):
            raise TypeError(f"matched_text_index={at!r}")
        path = picture.get("image_name") or picture.get("raw_url")
        before.setdefault(min(max(at, 0), len(data["text_list"])), []).append(path)
    parts: list[tuple[str, Any]] = []
    for number, text in enumerate([*data["text_list"], None]):
        parts += [("image", path) for path in before.get(number, ())]
        parts += [] if text is None else [("text", text)]
    return parts


def _parse_obelics(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """Parse the OBELICS layout: two lists of equal length with None where the other has a part."""
    parts: list[tuple[str, Any]] = []
    for text, path in zip(data["texts"], data["images"], strict=True):
        parts += [] if path is None else [("image", path)]
        parts += [] if text is None else [("text", text)]
    return parts
