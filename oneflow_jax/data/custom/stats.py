"""Statistics of prepared data: counts that can be merged across units."""

import collections
import dataclasses
from typing import Any

from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawDocument, RawImage
from oneflow_jax.data.document import Document, is_text

MAX_EXAMPLES = 5
"""Maximum number of locations in `places` for each reason."""

MAX_NAMES = 200
"""Maximum number of fields that are counted by name."""

MAX_NAME_LENGTH = 160
OTHER_NAMES = "(others)"

Examples = dict[str, list[str]]


def _empty_counter() -> collections.Counter[str]:
    return collections.Counter()


@dataclasses.dataclass
class DatasetStats:
    """Counts of one or several units.

    Attributes:
        documents: number of documents stored, by split.
        words: number of whitespace-separated words stored.
        `pictures`: number of images stored.
        seen: number of documents read, both stored and dropped.
        dropped: number of documents dropped, by reason.
        lost: number of images and texts dropped from documents, by reason.
        repaired: number of images and texts repaired, by kind of repair.
        places: locations of the first examples of each reason, repair, kind of unused file and
            content other than "text and image".
        lengths: number of documents by length. Key n counts documents of 2^(n-1) to 2^n - 1 words.
        shown: number of documents by their number of images.
        contents: number of documents by content: "text and image", "only text" or "only images".
        used: for each field or column, the number of documents in which it was used.
        unused: for each field or column, the number of documents in which it was not used.
        notes: for each choice between fields, the number of documents in which it was made.
        unused_files: number of files that were not read, by extension or by reason.
        opened: number of references to each image file. `count_unused` clears this field.
    """

    documents: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    words: int = 0
    pictures: int = 0
    seen: int = 0
    dropped: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    lost: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    repaired: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    places: Examples = dataclasses.field(default_factory=dict)
    lengths: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    shown: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    contents: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    used: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    unused: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    notes: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    unused_files: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)
    opened: collections.Counter[str] = dataclasses.field(default_factory=_empty_counter)

    def add_read(self, raw: RawDocument) -> None:
        """Count a document that was read, and its used and unused fields."""
        self.seen += 1
        for counter, names in (
            (self.used, raw.used),
            (self.unused, raw.unused),
            (self.notes, raw.notes),
        ):
            for name in names:
                _add_capped(counter, _printable(name)[:MAX_NAME_LENGTH])
        for part in raw.parts:
            if isinstance(part, RawImage):
                self.opened.update(part.files)

    def add_unused_file(self, kind: str, path: str) -> None:
        """Count a file that was not read."""
        self.unused_files[kind] += 1
        self._add_example(kind, path)

    def add_kept(self, document: Document, split: str, location: str = "") -> None:
        """Count a document that is stored, whose images may be gaps.

        The location of a document without text or without images is an example, unless it is "".
        """
        words = len(document.text().split())
        pictures = sum(not is_text(part) for part in document.parts)
        self.documents[split] += 1
        self.words += words
        self.pictures += pictures
        self.lengths[str(words.bit_length())] += 1
        self.shown[str(pictures)] += 1
        content = (
            "text and image" if words and pictures else "only text" if words else "only images"
        )
        self.contents[content] += 1
        if location and content != "text and image":
            self._add_example(content, location)

    def without_kept(self) -> "DatasetStats":
        """Return a copy without what `add_kept` has counted."""
        return dataclasses.replace(
            self,
            **{name: _empty_counter() for name in ("documents", "lengths", "shown", "contents")},
            words=0,
            pictures=0,
        )

    def add_dropped(self, error: DataError, location: str) -> None:
        """Count a document that is dropped."""
        self.dropped[error.reason] += 1
        self._add_example(error.reason, f"{location}: {error.detail}" if error.detail else location)

    def add_dropped_part(self, error: DataError, location: str) -> None:
        """Count an image or a text that is dropped from a document."""
        self.lost[error.reason] += 1
        self._add_example(error.reason, f"{location}: {error.detail}" if error.detail else location)

    def add_repair(self, repair: str, location: str) -> None:
        """Count a repair of an image or a text."""
        self.repaired[repair] += 1
        self._add_example(repair, location)

    def merge(self, other: "DatasetStats") -> None:
        """Add the counts of `other`, whose documents come after the documents of this instance."""
        for field in dataclasses.fields(self):
            value = getattr(other, field.name)
            if field.name in ("used", "unused", "notes"):
                for name, count in value.items():
                    _add_capped(getattr(self, field.name), name, count)
            elif field.name != "places":
                setattr(self, field.name, getattr(self, field.name) + value)
            else:
                for reason, places in value.items():
                    for place in places:
                        self._add_example(reason, place)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as values for JSON. Equal counts give equal output."""
        counts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: dict(sorted(value.items())) if isinstance(value, dict) else value
            for name, value in counts.items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DatasetStats":
        """Return the counts from the output of `to_dict`."""
        counted = {
            name: collections.Counter(value)
            if isinstance(value, dict) and name != "places"
            else value
            for name, value in values.items()
        }
        return cls(**counted)

    def _add_example(self, reason: str, location: str) -> None:
        places = self.places.setdefault(reason, [])
        if len(places) < MAX_EXAMPLES:
            places.append(_printable(location))


def _printable(name: str) -> str:
    """Escape the bytes in a file name that are not UTF-8, and return the name."""
    return name.encode("utf-8", "backslashreplace").decode()


def _add_capped(counter: collections.Counter[str], name: str, count: int = 1) -> None:
    """Count a name. After `MAX_NAMES` different names, all new names share one count."""
    counter[name if name in counter or len(counter) < MAX_NAMES else OTHER_NAMES] += count
