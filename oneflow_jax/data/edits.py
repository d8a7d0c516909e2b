"""Differences between two documents: inserted, deleted and substituted words and images."""

import dataclasses
import difflib
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from oneflow_jax.data.document import Document, Image, Text

Item = str | bytes
"""A word, or the bytes of the pixels of an image."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """One insertion, deletion or substitution.

    Attributes:
        index: number of the word or image in the original document, counted from 1. For an
            insertion, it is the number of the word or image before it, or 0 if there is none.
        old, new: the word, or "<image>". `old` is None for an insertion, and `new` is None for a
            deletion.
    """

    index: int
    old: str | None
    new: str | None

    def __str__(self) -> str:
        """Describe the edit in one line."""
        if self.old is None:
            return f"after {self.index}: inserted {self.new}"
        if self.new is None:
            return f"{self.index}: deleted {self.old}"
        if self.old == self.new == "<image>":
            return f"{self.index}: replaced <image>"
        return f"{self.index}: {self.old} -> {self.new}"


def diff_documents(original: Document, edited: Document) -> list[Edit]:
    """Return the edits of words and images that turn `original` into `edited`, in order."""
    old, new = diff_items(original), diff_items(edited)
    edits: list[Edit] = []
    for what, i, j, m, n in align(old, new).get_opcodes():
        if what != "equal":
            edits += _diff_span(old[i:j], new[m:n], i)
    return edits


def diff_items(document: Document) -> list[Item]:
    """Return the words and images in reading order. Images with equal pixels are equal items."""
    items: list[Item] = []
    for part in document.parts:
        if isinstance(part, Text):
            items += part.text.split()
        elif isinstance(part, Image):
            items.append(np.ascontiguousarray(part.pixels).tobytes())
    return items


def align(old: Sequence[Hashable], new: Sequence[Hashable]) -> difflib.SequenceMatcher:
    """Return a `SequenceMatcher` that aligns two lists of items."""
    return difflib.SequenceMatcher(None, old, new, autojunk=False)


def _diff_span(deleted: Sequence[Item], inserted: Sequence[Item], offset: int) -> Iterator[Edit]:
    """Yield the edits that turn `deleted` into `inserted`, two spans without common items.

    A word can only replace a word, and an image can only replace an image.
    """
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
