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


def diff_documents(original: Document, edited: Document) -> list[Edit]:
    """The changes, in reading order; words and pictures are counted alike, as items."""
    old, new = diff_items(original), diff_items(edited)
    found: list[Edit] = []
    for what, i, j, m, n in align(old, new).get_opcodes():
        if what != "equal":
            found += _diff_span(old[i:j], new[m:n], i)
    return found


def diff_items(document: Document) -> list[Item]:
    """The words and pictures, in reading order; pictures are equal if all their pixels are."""
    found: list[Item] = []
    for part in document.parts:
        if isinstance(part, Text):
            found += part.text.split()
        elif isinstance(part, Image):
            found.append(np.ascontiguousarray(part.pixels).tobytes())
    return found


def align(old: Sequence[Hashable], new: Sequence[Hashable]) -> difflib.SequenceMatcher:
    """Aligns two lists of items."""
    return difflib.SequenceMatcher(None, old, new, autojunk=False)


def _diff_span(deleted: Sequence[Item], inserted: Sequence[Item], offset: int) -> Iterator[Edit]:
    """What replaces what where nothing is the same: words replace words, pictures pictures."""
    kinds = [[isinstance(item, str) for item in each] for each in (deleted, inserted)]
    for what, i, j, m, n in align(*kinds).get_opcodes():
        if what == "equal":
            for k in range(j - i):
                yield Edit(
                    offset + i + k + 1, _describe(deleted[i + k]), _describe(inserted[m + k])
                )
        else:
            for k in range(i, j):
                yield Edit(offset + k + 1, _describe(deleted[k]), None)
            for item in inserted[m:n]:
                yield Edit(offset + j, None, _describe(item))


def _describe(item: Item) -> str:
    return item if isinstance(item, str) else "<image>"
