"""What turns one document into another: words and pictures put in, taken out or changed."""

import dataclasses
import difflib
import itertools
from collections.abc import Iterator, Sequence

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
            found += _edits(old, new, range(i, j), range(m, n))
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


def matcher(old: Sequence[Item], new: Sequence[Item]) -> difflib.SequenceMatcher:
    """Aligns two lists of items."""
    return difflib.SequenceMatcher(None, old, new, autojunk=False)


def _edits(old: Sequence[Item], new: Sequence[Item], gone: range, come: range) -> Iterator[Edit]:
    """What replaces what: one by one, and what is left over at the end."""
    for i, j in itertools.zip_longest(gone, come):
        if i is None:
            yield Edit(gone.stop, None, _name(new[j]))
        else:
            yield Edit(i + 1, _name(old[i]), None if j is None else _name(new[j]))


def _name(item: Item) -> str:
    return item if isinstance(item, str) else "<image>"
