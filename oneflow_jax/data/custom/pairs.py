"""Reader of files that are grouped by name into documents, such as `cat.png` and `cat.txt`.

key.png key.txt             an image and its text; also key.png.txt
key.0.png key.1.png key.txt several images, in the order of their names
images/key.png text/key.txt an image and its text in folders of these and similar names
Key.PNG key.txt             names that differ in letter case, or in the form of Unicode
key.json                    a record as in the module `record`, such as {"caption": ...}. Within a
                            {"document": [...]}, {"image": "0.png"} means the file `key.0.png`.

A key may contain dots. Therefore `key.0.png` belongs to `key` only if `key` has a text or JSON
file, and `key.en.txt` belongs to `key` only if `key` has an image.
"""

import dataclasses
import json
import posixpath
import re
import unicodedata
from collections.abc import Callable, Container, Iterator, Mapping, Sequence

from oneflow_jax import errors
from oneflow_jax.data.custom import chat, image_decode, record, record_document, text_clean
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

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpg", "jpeg", "png", "JPEGImages")
TEXT_FOLDERS = ("texts", "text", "txt", "captions", "caption", "prompts", "descriptions")
"""Names of sibling folders. `images/a.png` and `texts/a.txt`, for example, form a group."""

_KNOWN_FOLDERS = {name.lower() for name in (*IMAGE_FOLDERS, *TEXT_FOLDERS)}

DOCUMENTS_PER_UNIT = 256
"""Average number of documents in a work unit."""


_ABOUT = re.compile(
    r"(?:readme|licen[cs]e|copying|changelog|contributing|citation|authors|notice|requirements)"
    r"(?:[._-][\w-]+)*\.(?:md|markdown|html?|txt|text|json)"
)


def is_about_the_data(name: str) -> bool:
    """Return whether a file is a readme, a license or similar, and not part of the data."""
    return _ABOUT.fullmatch(posixpath.basename(name).lower()) is not None


@dataclasses.dataclass(frozen=True)
class GroupMember:
    """One file of a group.

    Attributes:
        name: name of the file.
        suffix: part of the name after the key, such as `.0.png`.
        load: function that returns the bytes of the file.
    """

    name: str
    suffix: str
    load: Callable[[], bytes]

    def to_image(self) -> RawImage:
        """Return the file as an image, without decoding it."""
        return RawImage(self.name, self.load)


def group_names(names: Sequence[str]) -> dict[str, list[str]]:
    """Group the names of files by the key of their document.

    A file that no other file belongs to has a key of its own. Keys are in the order of their first
    file, and the names of a group are sorted.
    """
    images = {_stem(name): name for name in names if _has_ending(name, image_decode.EXTENSIONS)}
    of_texts = {
        name: _text_stem(name, images)
        for name in names
        if _has_ending(name, (*TEXT_EXTENSIONS, JSON_EXTENSION))
    }
    texts = set(of_texts.values())
    groups: dict[str, list[str]] = {}
    for name in names:
        if name in of_texts:
            key = _find_prefix(of_texts[name], images)
        else:
            key = _find_prefix(_stem(name), texts)
        groups.setdefault(key, []).append(name)
    return {key: sorted(members) for key, members in _join_folders(groups).items()}


def _join_folders(groups: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Join groups of images with groups of texts in sibling folders; see `IMAGE_FOLDERS`.

    Groups whose keys differ only in letter case or in the form of Unicode are joined, too:
    `Cat.PNG` and `cat.txt`.
    """
    places: dict[str, list[str]] = {}
    for key, names in groups.items():
        if not (has_text(names) and has_image(names)):
            places.setdefault(generalize(key), []).append(key)
    joined = {}
    for keys in places.values():
        names = [name for key in keys for name in groups[key]]
        if has_text(names) and has_image(names):
            joined |= dict.fromkeys(keys, (keys[0], names))
    return dict(joined.get(key, (key, names)) for key, names in groups.items())


def generalize(key: str) -> str:
    """Return a key without folders of images and texts, in small letters and the form NFC."""
    folder, base = posixpath.split(key)
    named = (name for name in folder.split("/") if name.lower() not in _KNOWN_FOLDERS)
    return _compose(posixpath.join(*named, base)).lower()


def _compose(name: str) -> str:
    """Return a name in the Unicode form NFC; macOS writes accents as separate characters."""
    return unicodedata.normalize("NFC", name)


def _text_stem(name: str, images: Mapping[str, str]) -> str:
    """Return the name without its extension.

    If `cat.png` exists, the stem of `cat.png.txt` is `cat`.
    """
    stem = _stem(name)
    if _has_ending(stem, image_decode.EXTENSIONS) and images.get(_stem(stem)) == stem:
        return _stem(stem)
    return stem


def _find_prefix(stem: str, anchors: Container[str]) -> str:
    """Return the longest prefix of the stem that is in `anchors`.

    The whole stem is a prefix; every other prefix ends before a dot of the base name. If no prefix
    is in `anchors`, return the whole stem.
    """
    folder, base = posixpath.split(stem)
    pieces = base.split(".")
    for count in range(len(pieces), 0, -1):
        prefix = posixpath.join(folder, ".".join(pieces[:count]))
        if prefix in anchors:
            return prefix
    return stem


def has_text(names: Sequence[str]) -> bool:
    """Return whether one of the files is a text or JSON file."""
    return any(_has_ending(name, (*TEXT_EXTENSIONS, JSON_EXTENSION)) for name in names)


def has_image(names: Sequence[str]) -> bool:
    """Return whether one of the files is an image."""
    return any(_has_ending(name, image_decode.EXTENSIONS) for name in names)


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _has_ending(name: str, endings: Sequence[str]) -> bool:
    return name.lower().endswith(tuple(endings))


def make_document(
    location: str, members: Sequence[GroupMember], fields: Sequence[str]
) -> RawDocument:
    """Build the document of a group of files.

    Args:
        location: where the document comes from, for messages.
        members: files of the group, in the order of their names.
        fields: extensions in reading order, such as ("txt", "png"). With (), images come first.
    """
    table = next((each for each in members if _is_json(each)), None)
    try:
        values = _read_json(table) if table else {}
    except DataError as fault:
        return RawDocument(location, error=fault)
    ordered = _sort_members(members, fields)
    images = {each.suffix: each.to_image() for each in ordered if _is_image(each)}
    used = [each.suffix for each in ordered if _is_image(each) or _is_text(each)]
    endings = tuple(dict.fromkeys(posixpath.splitext(f"a{suffix}")[1] for suffix in used))
    unused = _list_unused(members, used)
    raw = None
    if values and not any(map(_is_text, members)):
        raw = _read_record(location, values, images, _text_place(fields))
    if raw is not None:
        return dataclasses.replace(raw, used=endings + raw.used, unused=unused + raw.unused)
    parts = tuple(part for each in ordered for part in _to_parts(each))
    rest = tuple(f"json: {name}" for name in values)
    return RawDocument(location, parts, None, endings, unused + rest)


def _text_place(fields: Sequence[str]) -> int | None:
    """Return the index of the first text field among `fields`, or None if no field is text.

    Without fields the index is 1, since images come first.
    """
    if not fields:
        return 1
    endings = (*TEXT_EXTENSIONS, JSON_EXTENSION)
    places = [n for n, field in enumerate(fields) if _has_ending(f".{field}", endings)]
    return places[0] if places else None


def _read_record(
    location: str, values: Mapping[str, object], images: Mapping[str, RawImage], place: int | None
) -> RawDocument | None:
    """Build a document from a JSON file and the images of its group.

    `place` is the result of `_text_place`. Return None if the JSON file has no known layout, or if
    `place` is None, because then `source.columns` names no text.
    """

    def locate(name: object) -> RawImage | DataError:
        image = images.get(f".{name}".lower())
        return image or DataError("missing file", str(name)[:80])

    places_images = any(each in values for each in ("document", *chat.FIELDS))
    # The images are files of the group. The image fields of the JSON file only say where these
    # files came from.
    chosen = {key: value for key, value in values.items() if not record.is_image_name(key)}
    if places_images and "document" not in values:
        chosen |= {"images": list(images.values())}
    raw = record_document.make_document(location, chosen, locate)
    if raw.error is not None or place is None:
        return None
    names = tuple(f"json: {name}" for name in raw.used if name in values)
    rest = tuple(f"json: {name}" for name in values if name not in raw.used)
    before, after = ((), images.values()) if place == 0 else (images.values(), ())
    parts = raw.parts if places_images else (*before, *raw.parts, *after)
    return dataclasses.replace(raw, parts=parts, used=names, unused=rest)


def _list_unused(members: Sequence[GroupMember], used: Sequence[str]) -> tuple[str, ...]:
    """Return the suffixes of the unused files of a group, without JSON files."""
    rest = [each.suffix for each in members if each.suffix not in used and not _is_json(each)]
    return tuple(dict.fromkeys(rest))


def _sort_members(members: Sequence[GroupMember], fields: Sequence[str]) -> list[GroupMember]:
    if not fields:
        return sorted(members, key=lambda each: not each.suffix.endswith(image_decode.EXTENSIONS))
    wanted = ["." + field.lstrip(".").lower() for field in fields]
    return [
        each for ending in wanted for each in members if each.suffix.endswith(ending)
    ]  # fmt: skip


def _to_parts(member: GroupMember) -> Iterator[RawImage | bytes | DataError]:
    if _is_image(member):
        yield member.to_image()
    elif _is_text(member):
        try:
            yield member.load()
        except DataError as fault:
            yield fault


def _read_json(member: GroupMember) -> dict[str, object]:
    try:
        values = json.loads(text_clean.decode(member.load()))
    except (ValueError, RecursionError) as error:
        raise DataError("malformed line", f"{member.name}: {error}") from error
    return values if isinstance(values, dict) else {}


def _is_image(member: GroupMember) -> bool:
    return member.suffix.endswith(image_decode.EXTENSIONS)


def _is_text(member: GroupMember) -> bool:
    return member.suffix.endswith(TEXT_EXTENSIONS)


def _is_json(member: GroupMember) -> bool:
    return member.suffix.endswith(JSON_EXTENSION)


class PairsReader:
    """Reader of a folder of files that are grouped by name."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List units of about `DOCUMENTS_PER_UNIT` documents, without dividing a group of files."""
        groups = find_groups(settings)
        if not groups:
            raise errors.UserError(
                f"source.path={settings.path}: no images or texts found. Give a folder of files "
                f"with extensions {', '.join(EXTENSIONS)}."
            )
        return [
            WorkUnit(tuple(name for key in chunk for name in groups[key]))
            for chunk in chunk_stably(sorted(groups), DOCUMENTS_PER_UNIT)
        ]

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per group of files."""
        folder = settings.folder

        def member(key: str, name: str) -> GroupMember:
            base, stem = (_compose(posixpath.basename(each)) for each in (name, key))
            suffix = base[len(stem) :].lower()
            return GroupMember(name, suffix, lambda: folder.read_bytes(name, MAX_FILE_BYTES))

        for key, names in group_names(unit.files).items():
            members = [member(key, name) for name in names]
            yield make_document(key, members, settings.columns)


def find_groups(settings: Settings) -> dict[str, list[str]]:
    """Return a dict from the key of each document to its files.

    A group that has only readme, license and similar files is not a document.
    """
    groups = group_names(settings.list_files(EXTENSIONS))
    return {
        key: files
        for key, files in groups.items()
        if not all(is_about_the_data(name) for name in files)
    }
