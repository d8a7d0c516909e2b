"""Files that belong together by name, a document each: `cat.png` and `cat.txt`.

key.png key.txt             a picture and its words
key.0.png key.1.png key.txt several pictures, in the order of their names
key.json                    {"caption": ...} or {"text": ...}; or {"document": [...]} as in JSON
                            lines, whose {"image": "0.png"} names the file `key.0.png`
"""

import dataclasses
import json
import posixpath
from collections.abc import Callable, Iterator, Sequence

from oneflow_jax import errors
from oneflow_jax.data.custom import image_decode
from oneflow_jax.data.custom.errors import Fault
from oneflow_jax.data.custom.reader import MOST_BYTES, Picture, Raw, Settings, Unit

WORDS = (".txt", ".text", ".caption")
TABLE = ".json"
ENDINGS = (*image_decode.ENDINGS, *WORDS, TABLE)

AT_ONCE = 256
"""Documents in a unit."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One file of a group; `ending` is all that follows the key, as in `.0.png`."""

    name: str
    ending: str
    load: Callable[[], bytes]

    def picture(self) -> Picture:
        """It, as a picture."""
        return Picture(self.name, self.load)


def key_of(name: str) -> tuple[str, str]:
    """The key and the ending of a file's name: its first dot parts them."""
    folder, base = posixpath.split(name)
    stem, dot, ending = base.partition(".")
    return posixpath.join(folder, stem), (dot + ending).lower()


def document(where: str, members: Sequence[Member], fields: Sequence[str]) -> Raw:
    """The document of a group.

    Args:
        where: for people.
        members: in the order of their names.
        fields: endings in reading order, as in ("txt", "png"); () for pictures first.
    """
    try:
        table = next((each for each in members if each.ending == TABLE), None)
        values = _table(table) if table else {}
        if isinstance(values.get("document"), list):
            return Raw(where, tuple(_told(values["document"], members)))
        parts = [part for each in _ordered(members, fields) for part in _parts(each)]
        if not any(each.ending.endswith(WORDS) for each in members):
            parts += [values[key] for key in ("caption", "text") if key in values][:1]
    except Fault as fault:
        return Raw(where, fault=fault)
    return Raw(where, tuple(parts))


def _ordered(members: Sequence[Member], fields: Sequence[str]) -> list[Member]:
    if not fields:
        return sorted(members, key=lambda each: not each.ending.endswith(image_decode.ENDINGS))
    wanted = ["." + field.lstrip(".").lower() for field in fields]
    return [
        each for ending in wanted for each in members if each.ending.endswith(ending)
    ]  # fmt: skip


def _parts(member: Member) -> Iterator[Picture | bytes | Fault]:
    if member.ending.endswith(image_decode.ENDINGS):
        yield member.picture()
    elif member.ending.endswith(WORDS):
        try:
            yield member.load()
        except Fault as fault:
            yield fault


def _table(member: Member) -> dict[str, object]:
    try:
        found = json.loads(member.load().decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise Fault("malformed line", f"{member.name}: {error}") from error
    return found if isinstance(found, dict) else {}


def _told(items: Sequence[object], members: Sequence[Member]) -> Iterator[Picture | str | Fault]:
    by_ending = {each.ending: each for each in members}
    for item in items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict) and "image" in item:
            named = by_ending.get(f".{item['image']}".lower())
            yield named.picture() if named else Fault("missing file", str(item["image"])[:80])
        elif isinstance(item, dict) and "text" in item:
            yield item["text"]
        else:
            yield Fault("not words", repr(item)[:80])


class Pairs:
    """A folder of such files."""

    def units(self, settings: Settings) -> list[Unit]:
        """Files of so many documents each; groups are never parted."""
        keys: dict[str, list[str]] = {}
        for name in settings.listed(ENDINGS):
            keys.setdefault(key_of(name)[0], []).append(name)
        if not keys:
            raise errors.UserError(
                f"source.path={settings.path}: no pictures or texts there (endings "
                f"{', '.join(ENDINGS)})"
            )
        groups = [files for _, files in sorted(keys.items())]
        return [
            Unit(tuple(name for files in groups[at : at + AT_ONCE] for name in files))
            for at in range(0, len(groups), AT_ONCE)
        ]

    def read(self, settings: Settings, unit: Unit) -> Iterator[Raw]:
        """A document a group."""
        folder = settings.folder

        def member(name: str) -> Member:
            return Member(name, key_of(name)[1], lambda: folder.bytes(name, MOST_BYTES))

        groups: dict[str, list[str]] = {}
        for name in unit.files:
            groups.setdefault(key_of(name)[0], []).append(name)
        for key, names in groups.items():
            yield document(key, [member(name) for name in sorted(names)], settings.fields)
