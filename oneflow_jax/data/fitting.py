"""Documents that are longer than a row of slots: cut, dropped, or refused."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from oneflow_jax.data import document as documents
from oneflow_jax.data.document import Document, Part, Text
from oneflow_jax.data.layout import Layout
from oneflow_jax.errors import UserError

OVERFLOW_POLICIES = ("error", "cut", "drop")
"""Of `data.long`."""


class Source(Protocol):
    """Documents in random access."""

    def __len__(self) -> int:
        """The number of documents."""
        ...

    def __getitem__(self, index: int) -> Document:
        """The document at `index`."""
        ...


def num_slots(layout: Layout, parts: Sequence[Part]) -> int:
    """Slots of a document of these parts: what `layout.row` would lay out."""
    rows, columns = layout.codec.grid
    if layout.text_first:
        parts = sorted(parts, key=lambda part: not documents.is_text(part))
    slots = 1 + layout.markers
    for run in documents.group_runs(parts):
        if documents.is_text(run[0]):
            slots += _text_slots(layout, sum(_count_tokens(layout, part.text) for part in run))
        else:
            slots += rows * columns + layout.markers
    return slots


def split_document(layout: Layout, document: Document) -> list[Document]:
    """The document in pieces that each fit a row, in order; none if it has no token at all.

    It is cut between parts; words that alone are longer than a row, between words; and a word that
    alone is, within.

    Raises:
        UserError: a row has no room even for one picture.
    """
    parts = [part for part in document.parts if _has_tokens(layout, part)]
    if parts and num_slots(layout, parts) <= layout.length:
        return [Document(tuple(parts))]
    found: list[Document] = []
    held: list[Part] = []
    for short in itertools.chain.from_iterable(_chunk_part(layout, part) for part in parts):
        if held and num_slots(layout, [*held, short]) > layout.length:
            found.append(Document(tuple(held)))
            held = []
        held.append(short)
    return [*found, Document(tuple(held))] if held else found


def count_chunks(source: Source, layout: Layout, policy: str) -> np.ndarray:
    """How many pieces each document of a source is used in, int32 `[documents]`.

    Raises:
        UserError: a document is too long, and `policy` is "error"; or there is no such policy.
    """
    if policy not in OVERFLOW_POLICIES:
        raise UserError(f"data.long={policy!r} is none of {', '.join(OVERFLOW_POLICIES)}.")
    found = np.zeros(len(source), np.int32)
    for index in range(len(source)):
        document = source[index]
        found[index] = len(split_document(layout, document))
        if found[index] > 1 and policy == "error":
            slots = num_slots(layout, document.parts)
            raise UserError(
                f"Document {index} needs {slots} slots, but data.length={layout.length}: raise "
                "data.length, or set data.long to 'cut' or 'drop'. It begins: "
                f"{document.words()[:60]!r}"
            )
    return np.where(found > 1, 0, found).astype(np.int32) if policy == "drop" else found


@dataclasses.dataclass(frozen=True)
class ChunkedSource:
    """The pieces of all documents of a source, in random access.

    Attributes:
        source: of whole documents.
        layout: what they are cut for.
        counts: see above.
    """

    source: Source
    layout: Layout
    counts: np.ndarray

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.counts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Document:
        # Python ends a for loop on IndexError.
        if not 0 <= index < len(self):
            raise IndexError(f"{index=} of {len(self)} documents")
        whole = int(np.searchsorted(self._ends, index, side="right"))
        return split_document(self.layout, self.source[whole])[
            index - int(self._ends[whole])
        ]  # Counted from its last.


def _count_tokens(layout: Layout, text: str) -> int:
    return len(layout.vocab.encode(text, allow_unknown=True)) if text.strip() else 0


def _text_slots(layout: Layout, num_tokens: int) -> int:
    """Slots of a run of words: at least one <end> follows, unless it has its own length."""
    if layout.grows:
        return num_tokens
    return -(-(num_tokens + 1) // layout.text_slots) * layout.text_slots


def _has_tokens(layout: Layout, part: Part) -> bool:
    """Whether anything of a part is left as slots; a tokenizer may see nothing in some words."""
    return not isinstance(part, Text) or _count_tokens(layout, part.text) > 0


def _chunk_part(layout: Layout, part: Part) -> Iterator[Part]:
    """The part, or what it is cut into if a row is too short for it alone."""
    slots = num_slots(layout, [part])
    if slots <= layout.length:
        yield part
        return
    if not isinstance(part, Text):
        raise UserError(
            f"A picture alone needs {slots} slots, but data.length={layout.length}: raise "
            "data.length or codec.patch, or lower codec.pixels."
        )
    yield from map(
        Text, split_text(part.text, lambda text: num_slots(layout, [Text(text)]) <= layout.length)
    )


def split_text(text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """The text in pieces that fit, as long as they can be; between words, if there are any.

    Raises:
        UserError: not even one character fits.
    """
    words = text.split()
    while words:
        count = _longest_prefix(words, " ", fits)
        if count:
            yield " ".join(words[:count])
            words = words[count:]
            continue
        letters = _longest_prefix(words[0], "", fits)
        if not letters:
            raise UserError("A row has no room for one character: raise data.length.")
        yield words[0][:letters]
        words[0] = words[0][letters:]


def _longest_prefix(items: Sequence[str], separator: str, fits: Callable[[str], bool]) -> int:
    """How many of the first pieces fit together; searched from below, since few do of many."""
    low, high = 0, 1
    while high <= len(items) and fits(separator.join(items[:high])):
        low, high = high, 2 * high
    high = min(high, len(items) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(separator.join(items[:middle])) else (low, middle)
    return low
