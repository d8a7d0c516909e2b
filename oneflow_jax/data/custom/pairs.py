"""Reader of files that are grouped by name into documents: `cat.png` and `cat.txt`.

key.png key.txt             an image and its text
key.0.png key.1.png key.txt several images, in the order of their names
key.json                    {"caption": ...} or {"text": ...}; or {"document": [...]} as in JSON
                            lines, where {"image": "0.png"} is the file `key.0.png`
"""

import dataclasses
import json
import posixpath
from collections.abc import Callable, Iterator, Sequence

from oneflow_jax import errors
from oneflow_jax.data.custom import image_decode
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import (
    MAX_FILE_BYTES,
    RawDocument,
    RawImage,
    Settings,
    WorkUnit,
    chunk_stably,
)

TEXT_EXTENSIONS = (".txt", ".text", ".caption")
JSON_EXTENSION = ".json"
EXTENSIONS = (*image_decode.EXTENSIONS, *TEXT_EXTENSIONS, JSON_EXTENSION)

DOCUMENTS_PER_UNIT = 256
"""Average number of documents in a work unit."""


@dataclasses.dataclass(frozen=True)
class GroupMember:
    """One file of a group; `suffix` is the part of its name after the key, such as `.0.png`."""

    name: str
    suffix: str
    load: Callable[[], bytes]

    def to_image(self) -> RawImage:
        """Return the file as an image that is not decoded yet."""
        return RawImage(self.name, self.load)


def split_key(name: str) -> tuple[str, str]:
    """Split a file name at its first dot into the key and the suffix."""
    folder, base = posixpath.split(name)
    stem, dot, ending = base.partition(".")
    return posixpath.join(folder, stem), (dot + ending).lower()


def make_document(
    location: str, members: Sequence[GroupMember], fields: Sequence[str]
) -> RawDocument:
    """Make a document of a group of files.

    Args:
        location: description of where the document comes from, for messages.
        members: files of the group, in the order of their names.
        fields: extensions in reading order, such as ("txt", "png"); () for images first.
    """
    try:
        table = next((each for each in members if each.suffix == JSON_EXTENSION), None)
        values = _read_json(table) if table else {}
        if isinstance(values.get("document"), list):
            return RawDocument(location, tuple(_resolve_items(values["document"], members)))
        parts = [part for each in _sort_members(members, fields) for part in _to_parts(each)]
        if not any(each.suffix.endswith(TEXT_EXTENSIONS) for each in members):
            parts += [values[key] for key in ("caption", "text") if key in values][:1]
    except DataError as fault:
        return RawDocument(location, error=fault)
    return RawDocument(location, tuple(parts))


def _sort_members(members: Sequence[GroupMember], fields: Sequence[str]) -> list[GroupMember]:
    if not fields:
        return sorted(members, key=lambda each: not each.suffix.endswith(image_decode.EXTENSIONS))
    wanted = ["." + field.lstrip(".").lower() for field in fields]
    return [
        each for ending in wanted for each in members if each.suffix.endswith(ending)
    ]  # fmt: skip


def _to_parts(member: GroupMember) -> Iterator[RawImage | bytes | DataError]:
    if member.suffix.endswith(image_decode.EXTENSIONS):
        yield member.to_image()
    elif member.suffix.endswith(TEXT_EXTENSIONS):
        try:
            yield member.load()
        except DataError as fault:
            yield fault


def _read_json(member: GroupMember) -> dict[str, object]:
    try:
        found = json.loads(member.load().decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise DataError("malformed line", f"{member.name}: {error}") from error
    return found if isinstance(found, dict) else {}


def _resolve_items(
    items: Sequence[object], members: Sequence[GroupMember]
) -> Iterator[RawImage | str | DataError]:
    by_ending = {each.suffix: each for each in members}
    for item in items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict) and "image" in item:
            named = by_ending.get(f".{item['image']}".lower())
            yield named.to_image() if named else DataError("missing file", str(item["image"])[:80])
        elif isinstance(item, dict) and "text" in item:
            yield item["text"]
        else:
            yield DataError("not words", repr(item)[:80])


class PairsReader:
    """Reader of a folder of files that are grouped by name."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List units of about `DOCUMENTS_PER_UNIT` documents; groups of files are not divided."""
        keys: dict[str, list[str]] = {}
        for name in settings.list_files(EXTENSIONS):
            keys.setdefault(split_key(name)[0], []).append(name)
        if not keys:
            raise errors.UserError(
                f"source.path={settings.path}: no images or texts found. Give a folder of files "
                f"with extensions {', '.join(EXTENSIONS)}."
            )
        return [
            WorkUnit(tuple(name for key in chunk for name in keys[key]))
            for chunk in chunk_stably(sorted(keys), DOCUMENTS_PER_UNIT)
        ]

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per group of files."""
        folder = settings.folder

        def member(name: str) -> GroupMember:
            return GroupMember(
                name, split_key(name)[1], lambda: folder.read_bytes(name, MAX_FILE_BYTES)
            )

        groups: dict[str, list[str]] = {}
        for name in unit.files:
            groups.setdefault(split_key(name)[0], []).append(name)
        for key, names in groups.items():
            yield make_document(key, [member(name) for name in sorted(names)], settings.columns)
