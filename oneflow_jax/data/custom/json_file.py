"""Reader of JSON files that hold all records of a data set.

[{"image": ..., "conversations": [...]}, ...]         a list of records, as in JSON lines
{"images": [...], "annotations": [{"image_id": 7, "caption": "a cat"}]}     COCO captions
{"images": [{"filename": ..., "sentences": [{"raw": "a cat"}]}]}       Karpathy's splits
{"data": [...]}                             records under the only key that has a list of objects
{"cat.png": "a cat"}                        a caption, captions or fields by image file
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oneflow_jax.data.custom import (
    chat,
    image_decode,
    image_value,
    jsonl,
    record_document,
    text_clean,
)
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import (
    MAX_FILE_BYTES,
    RawDocument,
    Settings,
    WorkUnit,
    list_file_units,
)

EXTENSIONS = (".json",)

_COCO_SPLIT = re.compile(r"(?:train|val|test)\d{4}")
"""Part of a COCO file's name, such as "val2017"; the folder of its images has this name."""

_ONE_RECORD = ("document", "text_list", *chat.FIELDS)
"""Keys that mark a file as a single record."""

Records = tuple[list[Any], list[str]]
"""(records of a file, keys of the file that were not used)."""


class JsonFileReader:
    """Reader of JSON files. The docstring of the module lists the layouts."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List one unit per file."""
        return list_file_units(settings, EXTENSIONS)

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per record."""
        (name,) = unit.files
        folder = settings.folder
        text = text_clean.decode(folder.read_bytes(name, MAX_FILE_BYTES))
        locate = image_value.make_locator(
            settings, folder, name, tuple(_COCO_SPLIT.findall(os.path.basename(name)))
        )
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            data = text.encode("utf-8", "surrogateescape")
            if not _has_json_lines(data):
                raise DataError("unreadable file", f"{name}: {error}") from error
            for number, line in enumerate(data.splitlines(), 1):
                if line.strip():
                    where = f"{name}, line {number:,}"
                    yield jsonl.parse_line(settings, where, line, locate)
            return
        records, unused = _list_records(name, content)
        for number, each in enumerate(records):
            where = f"{name}, record {number:,}"
            raw = record_document.make_document(where, each, locate, settings.columns)
            more = tuple(unused) if number == 0 else ()
            yield RawDocument(
                where, raw.parts, raw.error, raw.used, (*raw.unused, *more), raw.notes
            )


def _has_json_lines(data: bytes) -> bool:
    """Return whether the first line is a complete JSON object, as in a file of JSON lines."""
    try:
        return isinstance(json.loads(data.partition(b"\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def _list_records(name: str, data: Any) -> Records:  # noqa: ANN401 - any JSON value
    if isinstance(data, list):
        return data, []
    if not isinstance(data, dict):
        raise DataError("unknown layout", f"{name}: a {type(data).__name__}")
    if any(key in data for key in _ONE_RECORD):
        return [data], []
    lists = [key for key, value in data.items() if _is_list_of_objects(value)]
    if {"images", "annotations"} <= set(lists):
        unused = [key for key in data if key not in ("images", "annotations")]
        records, nested = _join_coco(data["images"], data["annotations"])
        return records, unused + nested
    if len(lists) == 1:
        return data[lists[0]], [key for key in data if key != lists[0]]
    if data and all(str(key).lower().endswith(image_decode.EXTENSIONS) for key in data):
        return [_name_image(key, value) for key, value in data.items()], []
    if lists:
        message = f"{name}: several keys have lists of records: {', '.join(lists)}"
        raise DataError("unknown layout", message)
    return [data], []


def _name_image(name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Return the record of an image; `value` is its caption, its captions, or its other fields."""
    if isinstance(value, Mapping):
        return {"image": name} | {key: each for key, each in value.items() if key != "image"}
    return {"image": name, "captions" if isinstance(value, list) else "caption": value}


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _join_coco(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> Records:
    """Return a record for each image, with its captions in order, and the keys not used."""
    captions: dict[str, list[Any]] = {}
    unused = {
        f"annotations[].{key}": None
        for each in annotations[:1]
        for key in each
        if key not in ("image_id", "caption")
    }
    for each in annotations:
        if "caption" in each:
            captions.setdefault(str(each.get("image_id")), []).append(each["caption"])
    records = []
    for each in images:
        record = {key: value for key, value in each.items() if key != "id"}
        records.append(record | {"captions": captions.pop(str(each.get("id")), [])})
    orphans = [f"annotations of image {number}" for number in captions]
    return records, [*unused, *orphans]
