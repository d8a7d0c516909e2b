"""Parsing of conversations with images, such as LLaVA's `conversations` and OpenAI's `messages`."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oneflow_jax.data.custom.errors import DataError

FIELDS = ("conversations", "conversation", "messages", "dialog")
"""Names of fields that hold a conversation."""

IMAGE_PLACE = re.compile(r"<\|?image(?:[ _]?\d+)?\|?>")
"""Placeholder in a text, such as `<image>`; the next image of the record replaces it."""

_CONTENT_FIELDS = ("value", "content", "text")
_IMAGE_VALUES = ("image", "image_url", "path", "url", "file_name", "bytes")

Part = tuple[str, Any]
"""("text", value) or ("image", value)."""


def is_chat(value: object) -> bool:
    """Return whether a value is a list of turns, such as {"from": ..., "value": ...}."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, Mapping) and _content_field(turn) for turn in value)
    )


def is_dialogs(value: object) -> bool:
    """Return whether a value is a list of {"user": ..., "assistant": ...}."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, Mapping) and "user" in turn for turn in value)
    )


def parse_turns(turns: Sequence[Mapping[str, Any]], images: Sequence[Any]) -> list[Part]:
    """Return the parts of a conversation; images without a placeholder in its texts come first."""
    waiting = iter(images)
    parts: list[Part] = []
    for turn in turns:
        content = turn[_content_field(turn)]
        if isinstance(content, str):
            parts += _split_places(content, waiting)
            continue
        for item in [content] if isinstance(content, Mapping) else content or ():
            if isinstance(item, str):
                parts += _split_places(item, waiting)
            elif typed_parts := parse_item(item, waiting):
                parts += typed_parts
            else:
                raise TypeError(f"{item!r} in a conversation"[:100])
    return [*(("image", each) for each in waiting), *parts]


def parse_dialogs(dialogs: Sequence[Mapping[str, Any]], images: Sequence[Any]) -> list[Part]:
    """Return the parts of {"user", "assistant"} turns; images without a placeholder come first."""
    turns = [
        {"content": turn[name]}
        for turn in dialogs
        for name in ("user", "assistant")
        if turn.get(name) is not None
    ]
    return parse_turns(turns, [image for image in images if image is not None])


def parse_item(item: object, waiting: Iterator[Any] | None) -> list[Part]:
    """Return the parts of a mapping whose "type" is text or image, and [] for any other value.

    Args:
        item: the value.
        waiting: images for the placeholders in texts and for image items that hold no image; each
            takes the next one. With None, the placeholders stay in the texts.
    """
    if not isinstance(item, Mapping) or not isinstance(item.get("type"), str):
        return []
    if item["type"].startswith("image"):
        value = next((item[key] for key in _IMAGE_VALUES if item.get(key) is not None), None)
        return [_next_image(waiting or iter(())) if value is None else ("image", value)]
    if item["type"] == "text" and item.get("text") is not None:
        return _split_places(item["text"], waiting)
    return []


def place_images(parts: Sequence[Part]) -> list[Part]:
    """Move the images to the placeholders if the texts have one placeholder for each image."""
    images = [value for kind, value in parts if kind == "image"]
    texts = [value for kind, value in parts if kind == "text"]
    places = sum(len(IMAGE_PLACE.findall(text)) for text in texts if isinstance(text, str))
    if not places or places != len(images):
        return list(parts)
    waiting = iter(images)
    return list(itertools.chain.from_iterable(_split_places(text, waiting) for text in texts))


def _split_places(text: Any, waiting: Iterator[Any] | None) -> list[Part]:  # noqa: ANN401 - any JSON value
    if waiting is None or not isinstance(text, str):
        return [("text", text)]
    first, *rest = IMAGE_PLACE.split(text)
    parts: list[Part] = [("text", first)] if first.strip() or not rest else []
    for each in rest:
        parts.append(_next_image(waiting))
        parts += [("text", each)] if each.strip() else []
    return parts


def _next_image(waiting: Iterator[Any]) -> Part:
    return "image", next(waiting, DataError("missing file", "a placeholder without an image"))


def _content_field(turn: Mapping[str, Any]) -> str:
    return next((name for name in _CONTENT_FIELDS if name in turn), "")
