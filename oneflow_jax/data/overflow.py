"""Handling of documents that are longer than a row: split them, drop them, or raise an error."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from oneflow_jax.data import document as documents
from oneflow_jax.data.document import Document, Part, Text
from oneflow_jax.data.layout import Layout
from oneflow_jax.errors import UserError, check_one_of

OVERFLOW_POLICIES = ("error", "split", "drop")
"""Allowed values of `data.overflow`."""


class Source(Protocol):
    """Random access to documents."""

    def __len__(self) -> int:
        """Return the number of documents."""
        ...

    def __getitem__(self, index: int) -> Document:
        """Return the document at `index`."""
        ...


def count_slots(layout: Layout, parts: Sequence[Part]) -> int:
    """Return the number of slots that `layout.row` would need for a document of these parts."""
    if layout.images_last:
        parts = sorted(parts, key=lambda part: not documents.is_text(part))
    slots = 1 + layout.has_markers
    for run in documents.group_runs(parts):
        if documents.is_text(run[0]):
            slots += count_text_slots(layout, run)
        else:
            slots += math.prod(layout.image_grid(run[0])) + layout.has_markers
    return slots


def count_text_slots(layout: Layout, run: Sequence[Text]) -> int:
    """Return the number of slots of a text run; a run that is padded has at least one <end>."""
    tokens = sum(_count_tokens(layout, part.text) for part in run)
    if layout.variable_length:
        return tokens
    return -(-(tokens + 1) // layout.text_slots) * layout.text_slots


def split_document(layout: Layout, document: Document) -> list[Document]:
    """Split a document into chunks, each of which fits a row; return [] if it has no tokens.

    Documents are split between parts. A text that does not fit a row is split between words, and a
    word that does not fit a row is split between characters.

    Raises:
        UserError: a single image does not fit a row.
    """
    parts = [part for part in document.parts if _has_tokens(layout, part)]
    if parts and count_slots(layout, parts) <= layout.length:
        return [Document(tuple(parts))]
    chunks: list[Document] = []
    held: list[Part] = []
    for short in itertools.chain.from_iterable(_chunk_part(layout, part) for part in parts):
        if held and count_slots(layout, [*held, short]) > layout.length:
            chunks.append(Document(tuple(held)))
            held = []
        held.append(short)
    return [*chunks, Document(tuple(held))] if held else chunks


def count_chunks(source: Source, layout: Layout, policy: str) -> np.ndarray:
    """Count the chunks of each document of a source, int32 `[documents]`.

    The count of a document that does not fit a row is 0 if `policy` is "drop".

    Raises:
        UserError: a document is too long and `policy` is "error", an image does not fit a row, or
            the policy is unknown.
    """
    check_one_of("data.overflow", policy, OVERFLOW_POLICIES)
    counts = np.zeros(len(source), np.int32)
    for index in range(len(source)):
        document = _outline(source, index)
        counts[index] = len(split_document(layout, document))
        if counts[index] > 1 and policy == "error":
            slots = count_slots(layout, document.parts)
            raise UserError(
                f"Document {index} needs {slots} slots, but data.sequence_length={layout.length}. "
                "Raise data.sequence_length, or set data.overflow to 'split' or 'drop'. "
                f"The document begins: {document.text()[:60]!r}"
            )
    return np.where(counts > 1, 0, counts).astype(np.int32) if policy == "drop" else counts


def measure_texts(source: Source, layout: Layout, max_documents: int) -> dict[str, int]:
    """Count the texts that exceed `layout.text_slots` tokens, in a sample of the documents.

    Returns:
        A dict with these keys: "measured", the number of texts in the sample; "longer", the number
        of texts with more than `layout.text_slots` tokens; "median", the median length in tokens,
        including the end token; and "data.text_slot_multiple", which is `layout.text_slots`.
    """
    lengths = list_text_lengths(source, layout, max_documents)
    return {
        "measured": len(lengths),
        "longer": sum(length > layout.text_slots for length in lengths),
        "median": int(np.median(lengths)) if lengths else 0,
        "data.text_slot_multiple": layout.text_slots,
    }


def list_text_lengths(source: Source, layout: Layout, max_documents: int) -> list[int]:
    """Return the length of each text in tokens, with the end token, in a sample of documents."""
    return [
        1 + sum(_count_tokens(layout, part.text) for part in run)
        for document in iter_outlines(source, max_documents)
        for run in documents.group_runs(document.parts)
        if documents.is_text(run[0])
    ]


def list_document_lengths(source: Source, layout: Layout, max_documents: int) -> list[int]:
    """Return the number of slots that each document needs, in a sample of documents."""
    return [
        count_slots(layout, document.parts) for document in iter_outlines(source, max_documents)
    ]


def count_shapes(source: Source, layout: Layout, max_documents: int) -> dict[str, int]:
    """Count the images of each aspect ratio of the layout, in a sample of the documents."""
    counts = dict.fromkeys(layout.aspect_ratios, 0)
    for document in iter_outlines(source, max_documents):
        for part in document.parts:
            if not documents.is_text(part):
                counts[layout.find_ratio(part)] += 1
    return counts


def iter_outlines(source: Source, max_documents: int) -> Iterator[Document]:
    """Yield at most `max_documents` documents, spread evenly over the source.

    Images may be gaps: no image is decoded if the source can read documents without them.
    """
    step = -(-max(1, len(source)) // max_documents)
    return (_outline(source, index) for index in range(0, len(source), step))


def _outline(source: Source, index: int) -> Document:
    """Return a document whose images may be gaps, without decoding images if possible."""
    read = getattr(source, "outline", source.__getitem__)
    return read(index)


@dataclasses.dataclass(frozen=True)
class ChunkedSource:
    """Random access to the chunks of all documents of a source.

    Attributes:
        source: source of whole documents.
        layout: layout whose rows the chunks fit.
        chunk_counts: number of chunks of each document, as returned by `count_chunks`.
    """

    source: Source
    layout: Layout
    chunk_counts: np.ndarray

    @functools.cached_property
    def _cumulative(self) -> np.ndarray:
        return np.cumsum(self.chunk_counts)

    def __len__(self) -> int:
        return int(self._cumulative[-1]) if len(self._cumulative) else 0

    def __getitem__(self, index: int) -> Document:
        # A Python for loop over the source ends on IndexError.
        if not 0 <= index < len(self):
            raise IndexError(f"{index=} of {len(self)} documents")
        whole = int(np.searchsorted(self._cumulative, index, side="right"))
        return split_document(self.layout, self.source[whole])[
            index - int(self._cumulative[whole])
        ]  # This index is negative, so it counts from the last chunk of the document.


def _count_tokens(layout: Layout, text: str) -> int:
    return len(layout.vocab.encode(text, allow_unknown=True)) if text.strip() else 0


def _has_tokens(layout: Layout, part: Part) -> bool:
    """Return whether a part takes any slots; a text without tokens takes none."""
    return not isinstance(part, Text) or _count_tokens(layout, part.text) > 0


def _chunk_part(layout: Layout, part: Part) -> Iterator[Part]:
    """Yield the part if it fits a row, and otherwise its chunks."""
    slots = count_slots(layout, [part])
    if slots <= layout.length:
        yield part
        return
    if not isinstance(part, Text):
        raise UserError(
            f"An image needs {slots} slots, but data.sequence_length={layout.length}. Raise "
            "data.sequence_length or codec.patch_size, or lower codec.pixels."
        )
    yield from map(
        Text, split_text(part.text, lambda text: count_slots(layout, [Text(text)]) <= layout.length)
    )


def split_text(text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """Split a text into the longest chunks that fit, between words where possible.

    Raises:
        UserError: a single character does not fit.
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
            raise UserError("A row has no room for a single character. Raise data.sequence_length.")
        yield words[0][:letters]
        words[0] = words[0][letters:]


def _longest_prefix(items: Sequence[str], separator: str, fits: Callable[[str], bool]) -> int:
    """Return how many of the first `items` (words or characters) fit when they are joined.

    The search is exponential and then binary.
    """
    low, high = 0, 1
    while high <= len(items) and fits(separator.join(items[:high])):
        low, high = high, 2 * high
    high = min(high, len(items) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(separator.join(items[:middle])) else (low, middle)
    return low
