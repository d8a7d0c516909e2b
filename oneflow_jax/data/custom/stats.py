"""What came of the data: counts that add up, whoever counted which part of them."""

import collections
import dataclasses
from typing import Any

from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.document import Document

MAX_EXAMPLES = 5
"""Places that are told for each reason: the first ones."""

Examples = dict[str, list[str]]


def _empty_counter() -> collections.Counter[str]:
    return collections.Counter()


@dataclasses.dataclass
class DatasetStats:
    """Counts of one unit, or of several.

    Attributes:
        documents: kept, by split.
        words, pictures: kept.
        seen: documents looked at; those that are kept or dropped.
        dropped: documents left out, by reason.
        lost: pictures and texts left out of documents, by reason.
        repaired: pictures and texts put right, by what was.
        places: the first ones of each reason.
        lengths: documents by words: key n counts those of 2^(n-1) to 2^n - 1 words.
        shown: documents by pictures.
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

    def keep(self, document: Document, split: str) -> None:
        """Counts a document that is stored."""
        words, pictures = len(document.words().split()), len(document.pictures())
        self.documents[split] += 1
        self.words += words
        self.pictures += pictures
        self.lengths[str(words.bit_length())] += 1
        self.shown[str(pictures)] += 1

    def drop(self, fault: DataError, where: str) -> None:
        """Counts a document that is left out."""
        self.dropped[fault.reason] += 1
        self._place(fault.reason, f"{where}: {fault.detail}" if fault.detail else where)

    def lose(self, fault: DataError, where: str) -> None:
        """Counts a part of a document that is left out."""
        self.lost[fault.reason] += 1
        self._place(fault.reason, f"{where}: {fault.detail}" if fault.detail else where)

    def repair(self, what: str, where: str) -> None:
        """Counts something that was put right."""
        self.repaired[what] += 1
        self._place(what, where)

    def add(self, other: "DatasetStats") -> None:
        """Counts what another has counted after this one."""
        for field in dataclasses.fields(self):
            value = getattr(other, field.name)
            if field.name != "places":
                setattr(self, field.name, getattr(self, field.name) + value)
                continue
            for reason, places in value.items():
                for place in places:
                    self._place(reason, place)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the same for the same counts."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: dict(sorted(value.items())) if isinstance(value, dict) else value
            for name, value in found.items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DatasetStats":
        """What `to_dict` gave."""
        counted = {
            name: collections.Counter(value)
            if isinstance(value, dict) and name != "places"
            else value
            for name, value in values.items()
        }
        return cls(**counted)

    def _place(self, reason: str, where: str) -> None:
        places = self.places.setdefault(reason, [])
        if len(places) < MAX_EXAMPLES:
            # Names of files may hold bytes that are no text.
            places.append(where.encode("utf-8", "backslashreplace").decode())
