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

POLICIES = ("error", "cut", "drop")
"""Of `data.long`."""


class Source(Protocol):
    """Documents in random access."""

    def __len__(self) -> int:
        """The number of documents."""
        ...

    def __getitem__(self, index: int) -> Document:
        """The document at `index`."""
        ...


def needed(layout: Layout, parts: Sequence[Part]) -> int:
    """Slots of a document of these parts: what `layout.row` would lay out."""
    rows, columns = layout.codec.grid
    if layout.text_first:
        parts = sorted(parts, key=lambda part: not documents.is_text(part))
    slots = 1 + layout.markers
    for run in documents.runs(parts):
        if documents.is_text(run[0]):
            slots += _of_text(layout, sum(_tokens(layout, part.text) for part in run))
        else:
            slots += rows * columns + layout.markers
    return slots


def pieces(layout: Layout, document: Document) -> list[Document]:
    """The document in pieces that each fit a row, in order; none if it has no token at all.

    It is cut between parts; words that alone are longer than a row, between words; and a word that
    alone is, within.

    Raises:
        UserError: a row has no room even for one picture.
    """
    parts = [part for part in document.parts if _visible(layout, part)]
    if parts and needed(layout, parts) <= layout.length:
        return [Document(tuple(parts))]
    found: list[Document] = []
    held: list[Part] = []
    for short in itertools.chain.from_iterable(_short(layout, part) for part in parts):
        if held and needed(layout, [*held, short]) > layout.length:
            found.append(Document(tuple(held)))
            held = []
        held.append(short)
    return [*found, Document(tuple(held))] if held else found


def counts(source: Source, layout: Layout, policy: str) -> np.ndarray:
    """How many pieces each document of a source is used in, int32 `[documents]`.

    Raises:
        UserError: a document is too long, and `policy` is "error"; or there is no such policy.
    """
    if policy not in POLICIES:
        raise UserError(f"data.long={policy!r} is none of {', '.join(POLICIES)}.")
    found = np.zeros(len(source), np.int32)
    for index in range(len(source)):
        document = source[index]
        found[index] = len(pieces(layout, document))
        if found[index] > 1 and policy == "error":
            slots = needed(layout, document.parts)
            raise UserError(
                f"Document {index} needs {slots} slots, but data.length={layout.length}: raise "
                "data.length, or set data.long to 'cut' or 'drop'. It begins: "
                f"{document.words()[:60]!r}"
            )
    return np.where(found > 1, 0, found).astype(np.int32) if policy == "drop" else found


@dataclasses.dataclass(frozen=True)
class Fitted:
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
        return pieces(self.layout, self.source[whole])[
            index - int(self._ends[whole])
        ]  # Counted from its last.


def _tokens(layout: Layout, text: str) -> int:
    return len(layout.vocab.encode(text, allow_unknown=True)) if text.strip() else 0


def _of_text(layout: Layout, tokens: int) -> int:
    """Slots of a run of words: at least one <end> follows, unless it has its own length."""
    if layout.grows:
        return tokens
    return -(-(tokens + 1) // layout.text_slots) * layout.text_slots


def _visible(layout: Layout, part: Part) -> bool:
    """Whether anything of a part is left as slots; a tokenizer may see nothing in some words."""
    return not isinstance(part, Text) or _tokens(layout, part.text) > 0


def _short(layout: Layout, part: Part) -> Iterator[Part]:
    """The part, or what it is cut into if a row is too short for it alone."""
    slots = needed(layout, [part])
    if slots <= layout.length:
        yield part
        return
    if not isinstance(part, Text):
        raise UserError(
            f"A picture alone needs {slots} slots, but data.length={layout.length}: raise "
            "data.length or codec.patch, or lower codec.pixels."
        )
    yield from map(Text, cut(part.text, lambda text: needed(layout, [Text(text)]) <= layout.length))


def cut(text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """The text in pieces that fit, as long as they can be; between words, if there are any.

    Raises:
        UserError: not even one character fits.
    """
    words = text.split()
    while words:
        count = _most(words, " ", fits)
        if count:
            yield " ".join(words[:count])
            words = words[count:]
            continue
        letters = _most(words[0], "", fits)
        if not letters:
            raise UserError("A row has no room for one character: raise data.length.")
        yield words[0][:letters]
        words[0] = words[0][letters:]


def _most(pieces: Sequence[str], between: str, fits: Callable[[str], bool]) -> int:
    """How many of the first pieces fit together; searched from below, since few do of many."""
    low, high = 0, 1
    while high <= len(pieces) and fits(between.join(pieces[:high])):
        low, high = high, 2 * high
    high = min(high, len(pieces) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(between.join(pieces[:middle])) else (low, middle)
    return low
