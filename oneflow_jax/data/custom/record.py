"""Parsing of records, which are JSON objects or rows of tables.

A record can have one of these layouts:

{"document": [{"text": "a cat"}, {"image": "cat.png"}]}                           oneflow_jax
{"text_list": [...], "image_info": [{"image_name": ..., "matched_text_index": ...}]}     MMC4
{"texts": ["a cat", null], "images": [null, "cat.png"]}                               OBELICS
{"conversations": [{"value": "<image> What is it?"}], "image": "cat.png"}      LLaVA; messages
{"image": "cat.png", "caption": "a cat"}                    fields by name, in any letter case
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from oneflow_jax.data.custom import chat, image_decode

TEXT_FIELDS = (
    *(("text",), ("texts",), ("txt",), ("caption",), ("captions",), ("sentence",)),
    *(("sentences",), ("description",), ("prompt",), ("title",), ("alt_text",), ("alt",)),
    ("comment",),  # Flickr30k
    *(("question", "answer"), ("question", "answers"), ("question",)),
)
"""Names of text fields, in order of precedence. Fields in one tuple are used together."""

_KNOWN_TEXT = {name for group in TEXT_FIELDS for name in group}

IMAGE_FIELDS = (
    *("image", "images", "img", "imgs", "image_path", "image_paths", "img_path", "image_file"),
    *("image_name", "image_bytes", "image_data", "image_base64", "jpg", "jpeg", "png", "webp"),
    *("picture", "photo"),
)
"""Names of image fields. The first of these fields that has a value is used."""

FILE_FIELDS = (
    *("file_name", "file_names", "filename", "filepath", "file_path", "filepaths", "file", "path"),
    *("bytes", "base64"),
)
"""Names of fields that are used as images if a record has none of `IMAGE_FIELDS`.

Such a field is used only if its value is bytes, a data URI or the name of an image file.
"""

_AFFIXED_IMAGE = re.compile(r"(?:\w+_)?(?:image|img|picture|photo|file_?names?)(?:_?\d+)?")
_NOT_TEXT = re.compile(
    r"(?:.*_)?(?:id|uid|uuid|key|url|uri|urls|hash|md5|sha\d*|license|lang|language|split|source|"
    r"status|path|file|filename|file_name|exif|date|timestamp)"
)
"""Names of fields that are never used as text unless `source.columns` has them."""


@dataclasses.dataclass(frozen=True)
class Record:
    """Parts of a record, and the names of its used and unused fields.

    Attributes:
        parts: ("text", value) and ("image", value), in reading order.
        used: names of the fields that the parts come from.
        unused: names of the other fields. "document[].alt" is the field "alt" of the elements of
            the list "document".
        notes: choices that were made between fields, such as "the text is 'caption', not 'title'".
    """

    parts: tuple[chat.Part, ...] = ()
    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse(
    data: Any,  # noqa: ANN401 - any JSON value
    columns: Sequence[str] = (),
    *,
    is_row: bool = False,
) -> Record:
    """Parse a record, and return its parts in reading order.

    Args:
        data: a mapping of fields, or a list of parts.
        columns: fields to use, in reading order. With (), fields are chosen by name.
        is_row: whether the record is a row of a table with typed columns. Then images come before
            texts, and all text columns are used if none has a known name.

    Raises:
        KeyError: no field is recognized as text or image.
        AttributeError, TypeError, ValueError: the layout is malformed.
    """
    if not isinstance(data, Mapping):
        return _parse_items("", data)
    chosen, notes = _select(data, columns) if columns else (data, ())
    record = _parse_layout(chosen, is_row=is_row, is_ordered=bool(columns))
    unused = (*record.unused, *(key for key in data if key not in chosen))
    return dataclasses.replace(record, unused=unused, notes=(*record.notes, *notes))


def is_image_name(key: str) -> bool:
    """Return whether the name of a field marks it as an image."""
    name = _fold(key)
    return name in (*IMAGE_FIELDS, *FILE_FIELDS) or _AFFIXED_IMAGE.fullmatch(name) is not None


def is_text_name(key: str) -> bool:
    """Return whether the name of a field marks it as text."""
    return _fold(key) in _KNOWN_TEXT or "caption" in _fold(key)


def is_known_name(key: str) -> bool:
    """Return whether the name of a field marks it as an image or text."""
    return is_image_name(key) or is_text_name(key)


def _select(
    data: Mapping[str, Any], columns: Sequence[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    keys = {_fold(key): key for key in data}
    selected = {
        keys[_fold(name)]: data[keys[_fold(name)]] for name in columns if _fold(name) in keys
    }
    if not selected:
        raise KeyError(f"the record has none of source.columns={tuple(columns)}")
    missing = [name for name in columns if _fold(name) not in keys]
    return selected, tuple(f"source.columns: {name!r} is missing" for name in missing)


def _parse_layout(data: Mapping[str, Any], *, is_row: bool, is_ordered: bool) -> Record:
    keys = {_fold(key): key for key in data}

    def value(name: str) -> Any:  # noqa: ANN401 - any JSON value
        return data[keys[name]] if name in keys else None

    def finish(parts: Sequence[chat.Part], used: Sequence[str], *more: str) -> Record:
        names = [keys[name] for name in used if name in keys]
        unused = tuple(key for key in data if key not in names) + more
        return Record(tuple(parts), tuple(names), unused)

    if "text_list" in keys:
        parts, nested = _parse_mmc4(value("text_list"), value("image_info") or [])
        return finish(parts, ("text_list", "image_info"), *nested)
    for name in chat.FIELDS:
        if chat.is_chat(value(name)):
            image = next((each for each in ("images", "image") if value(each) is not None), "")
            images = value(image) if isinstance(value(image), list) else [value(image)]
            parts = chat.parse_turns(value(name), [each for each in images if each is not None])
            return finish(parts, (name, image))
    texts, images = value("texts"), value("images")
    if chat.is_dialogs(texts):
        return finish(chat.parse_dialogs(texts, images or []), ("texts", "images"))
    are_lists = isinstance(texts, list) and isinstance(images, list)
    if are_lists and (not is_row or len(texts) == len(images)):
        return finish(_interleave(texts, images), ("texts", "images"))
    if isinstance(value("document"), list | Mapping):
        record = _parse_items("document[].", value("document"))
        return finish(record.parts, ("document",), *record.unused)
    return _parse_fields(data, is_row=is_row, is_ordered=is_ordered)


def _parse_items(prefix: str, items: Any) -> Record:  # noqa: ANN401 - any JSON value
    """Parse a list whose items are texts, or mappings with a text, an image or both."""
    if isinstance(items, Mapping):
        items = [items]
    if not isinstance(items, list):
        raise TypeError(f"a {type(items).__name__} is not a document")
    parts: list[chat.Part] = []
    unused: list[str] = []
    for item in items:
        if isinstance(item, str):
            parts.append(("text", item))
            continue
        if not isinstance(item, Mapping):
            raise TypeError(f"a {type(item).__name__} in a list of parts")
        if typed := chat.parse_item(item, None):
            parts += typed
            continue
        try:
            record = _parse_fields(item, is_row=False, is_ordered=False)
        except KeyError:
            record = Record(unused=tuple(item))
        parts += record.parts
        unused += [f"{prefix}{key}" for key in record.unused]
    if items and not parts:
        raise KeyError("neither text nor image")
    return Record(tuple(parts), (), tuple(dict.fromkeys(unused)))


def _parse_fields(data: Mapping[str, Any], *, is_row: bool, is_ordered: bool) -> Record:
    """Parse a record by the names of its fields.

    The parts are the image fields and the first text field with a value, or all fields if
    `is_ordered`.
    """
    if not data:
        return Record()
    notes: tuple[str, ...] = ()
    if is_ordered:
        images = [key for key, value in data.items() if _is_image_field(key, value)]
        texts = [key for key in data if key not in images]
    else:
        images = _choose_images(data)
        rest = {key: value for key, value in data.items() if key not in images}
        texts, notes = _choose_texts(rest, all_texts=is_row)
    if not images and not texts:
        raise KeyError(f"neither text nor image in the fields {', '.join(map(repr, data))[:150]}")
    order = [*images, *texts] if is_row and not is_ordered else list(data)
    parts = [
        ("image", value) if key in images else ("text", _unwrap_text(value))
        for key in order
        if key in images or key in texts
        for value in (data[key] if isinstance(data[key], list | tuple) else [data[key]])
        if value is not None and (key in texts or _has_value(value))
    ]
    used = tuple(key for key in data if key in images or key in texts)
    unused = tuple(key for key in data if key not in used)
    return Record(tuple(chat.place_images(parts)), used, unused, notes)


def _choose_images(data: Mapping[str, Any]) -> list[str]:
    objects = [key for key, value in data.items() if _is_image_object(value)]
    if objects:
        return objects
    keys = {_fold(key): key for key in reversed(data)}
    named = [
        keys[name]
        for name in IMAGE_FIELDS
        if name in keys and not isinstance(data[keys[name]], bool | int | float)
    ]
    if filled := [key for key in named if _has_value(data[key])]:
        return filled[:1]
    for name in FILE_FIELDS:
        if name in keys and _names_image(data[keys[name]]):
            return [keys[name]]
    if named:  # A field such as `conditioning_image` does not replace an image that is missing.
        return named[:1]
    affixed = [
        key
        for key, value in data.items()
        if _AFFIXED_IMAGE.fullmatch(_fold(key)) and _names_image(value)
    ]
    return affixed or [
        key
        for key, value in data.items()
        if isinstance(value, bytes) and _fold(key) not in _KNOWN_TEXT
    ]  # fmt: skip


def _choose_texts(data: Mapping[str, Any], *, all_texts: bool) -> tuple[list[str], tuple[str, ...]]:
    """Return the fields to use as text, and a note if several fields were possible."""
    keys = {_fold(key): key for key in reversed(data)}
    groups = [[keys[name] for name in group] for group in TEXT_FIELDS if keys.keys() >= set(group)]
    groups += [[key] for key in data if "caption" in _fold(key) and [key] not in groups]
    filled = [group for group in groups if _has_value(data[group[0]])] or groups
    if filled:
        rest = dict.fromkeys(repr(group[0]) for group in filled if group[0] != filled[0][0])
        note = (f"the text is {filled[0][0]!r}, not {', '.join(rest)}",) if rest else ()
        return filled[0], note
    texts = [
        key
        for key, value in data.items()
        if all_texts and _is_text(value) and not _NOT_TEXT.fullmatch(_fold(key))
    ]
    note = f"no text field has a known name; the text is {', '.join(map(repr, texts))}"
    return texts, (note,) if texts else ()


def _parse_mmc4(texts: list[Any], images: list[Any]) -> tuple[list[chat.Part], list[str]]:
    """Parse the MMC4 layout: each image comes before the text at its `matched_text_index`."""
    before: dict[int, list[Any]] = {}
    unused: dict[str, None] = {}
    for image in images:
        index = image.get("matched_text_index", 0)
        if not isinstance(index, int) or isinstance(index, bool):
            raise TypeError(f"matched_text_index={index!r}")
        field = "image_name" if image.get("image_name") else "raw_url"
        before.setdefault(min(max(index, 0), len(texts)), []).append(image.get(field))
        used = (field, "matched_text_index")
        unused |= {f"image_info[].{key}": None for key in image if key not in used}
    parts: list[chat.Part] = []
    for number, text in enumerate([*texts, None]):
        parts += [("image", path) for path in before.get(number, ())]
        parts += [] if text is None else [("text", text)]
    return parts, list(unused)


def _interleave(texts: list[Any], images: list[Any]) -> list[chat.Part]:
    """Parse the OBELICS layout: two lists of equal length; at each index, one of them has None."""
    parts: list[chat.Part] = []
    for text, image in zip(texts, images, strict=True):
        parts += [] if image is None else [("image", image)]
        parts += [] if text is None else [("text", text)]
    return parts


def _fold(name: object) -> str:
    return str(name).strip().casefold()


def _has_value(value: object) -> bool:
    """Return whether a value is neither None nor blank text, nor a list of such values."""
    if isinstance(value, list | tuple):
        return any(map(_has_value, value))
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _is_image_object(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_image_object(each) for each in value)
    return isinstance(value, Mapping) and ("bytes" in value or "path" in value)


def _names_image(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(_names_image(each) for each in value)
    return isinstance(value, bytes) or (
        isinstance(value, str)
        and (value.lower().endswith(image_decode.EXTENSIONS) or value.startswith("data:image/"))
    )


def _is_image_field(key: str, value: object) -> bool:
    """Return whether a field in `source.columns` holds images."""
    if _fold(key) in IMAGE_FIELDS or _is_image_object(value):
        return True
    return _fold(key) not in _KNOWN_TEXT and _names_image(value)


def _is_text(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_text(each) for each in value)
    return isinstance(value, str)


def _unwrap_text(value: object) -> object:
    """Return the text of an element of a list of captions, such as {"raw": "a cat"}."""
    if isinstance(value, Mapping):
        return next((value[key] for key in ("raw", "text", "caption") if key in value), value)
    return value
