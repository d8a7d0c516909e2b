"""What turns one document into another: words and pictures put in, taken out or changed."""

import dataclasses
import difflib
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from oneflow_jax.data.document import Document, Image, Text

Item = str | bytes
"""A word, or the content of a picture."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """One change.

    Attributes:
        place: number of the item in the document before, from 1; of one that is put in, that of
            the item which it comes after, 0 for the beginning.
        before, after: the word, or "<image>"; None where there is none.
    """

    place: int
    before: str | None
    after: str | None

    def __str__(self) -> str:
        """One line for people."""
        if self.before is None:
            return f"after {self.place}: put in {self.after}"
        if self.after is None:
            return f"{self.place}: took out {self.before}"
        if self.before == self.after == "<image>":
            return f"{self.place}: made <image> anew"
        return f"{self.place}: {self.before} -> {self.after}"


def edits(before: Document, after: Document) -> list[Edit]:
    """The changes, in reading order; words and pictures are counted alike, as items."""
    old, new = items(before), items(after)
    found: list[Edit] = []
    for what, i, j, m, n in matcher(old, new).get_opcodes():
        if what != "equal":
            found += _edits(old[i:j], new[m:n], i)
    return found


def items(document: Document) -> list[Item]:
    """The words and pictures, in reading order; pictures are equal if all their pixels are."""
    found: list[Item] = []
    for part in document.parts:
        if isinstance(part, Text):
            found += part.text.split()
        elif isinstance(part, Image):
            found.append(np.ascontiguousarray(part.pixels).tobytes())
    return found


def matcher(old: Sequence[Hashable], new: Sequence[Hashable]) -> difflib.SequenceMatcher:
    """Aligns two lists of items."""
    return difflib.SequenceMatcher(None, old, new, autojunk=False)


def _edits(gone: Sequence[Item], come: Sequence[Item], before: int) -> Iterator[Edit]:
    """What replaces what where nothing is the same: words replace words, pictures pictures."""
    kinds = [[isinstance(item, str) for item in each] for each in (gone, come)]
    for what, i, j, m, n in matcher(*kinds).get_opcodes():
        if what == "equal":
            for k in range(j - i):
                yield Edit(before + i + k + 1, _name(gone[i + k]), _name(come[m + k]))
        else:
            for k in range(i, j):
                yield Edit(before + k + 1, _name(gone[k]), None)
            for item in come[m:n]:
                yield Edit(before + j, None, _name(item))


def _name(item: Item) -> str:
    return item if isinstance(item, str) else "<image>"
