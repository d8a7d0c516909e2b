"""Layout: conversion of documents to rows of slots, and of rows back to documents.

    BOS | text run: its tokens, then <end> in the remaining slots | image: its patches | text run...

The number of slots of a text run is a multiple of `text_slots`, and at least one of them is <end>.
A fixed-length model learns to emit <end> and can thus write shorter texts. Insertion models do not
need <end>. For these models `text_slots` is 0: a run has exactly one slot per token, and a gap has
no slot but marks a position where the model may insert.
"""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Iterator, Sequence

import numpy as np

from oneflow_jax.canvas import Canvas, InsertPolicy, Modality
from oneflow_jax.codecs.base import Codec
from oneflow_jax.data import document as documents
from oneflow_jax.data import image_shapes, spelling
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.document import Document, EncodedImage, Gap, Image, Part, Text
from oneflow_jax.errors import UserError

_INSERT_POLICIES = {"text": int(InsertPolicy.TEXT), "document": int(InsertPolicy.ANY)}

RowFields = dict[str, np.ndarray]
"""Fields of one `Canvas` row except `segment`, not padded to the row length."""

ImageSlots = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Ids `[N]`, latents `[N C]` and positions `[N 3]` of the slots of one image, in reading order."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Mapping between documents and rows of slots.

    Attributes:
        vocab: vocabulary that encodes text.
        codec: codec that encodes images.
        length: number of slots of a row, L.
        text_slots: the number of slots of a text run is a multiple of this. With 0, a run has one
            slot per token.
        has_markers: whether <image> precedes each image and <end> follows each document, for
            autoregressive models.
        images_last: whether all text of a document precedes its images.
        aspect_ratios: aspect ratios of images, width to height.
    """

    vocab: vocabs.IdRanges
    codec: Codec
    length: int
    text_slots: int
    has_markers: bool = False
    images_last: bool = False
    aspect_ratios: tuple[str, ...] = (image_shapes.SQUARE,)

    @functools.cached_property
    def shapes(self) -> image_shapes.ImageShapes:
        """The shapes of images."""
        slot_pixels = self.codec.pixels // self.codec.grid[0]
        return image_shapes.ImageShapes(self.codec.pixels, slot_pixels, self.aspect_ratios)

    @property
    def variable_length(self) -> bool:
        """Whether text runs have one slot per token, and the model fills gaps by insertion."""
        return self.text_slots == 0

    @property
    def marker_ids(self) -> tuple[int, ...]:
        """Ids of tokens that only mark the beginning of an image or the end of a document."""
        return (vocabs.IMAGE, vocabs.END) if self.has_markers else ()

    def row(self, document: Document) -> RowFields:
        """Lay out a training document. All slots except BOS are training targets.

        Raises:
            UserError: the document is empty, has gaps, or is longer than a row.
        """
        if any(isinstance(part, Gap) for part in document.parts):
            raise UserError(f"A training document has a gap: {_excerpt(document)}")
        row = self._make_row(document, allow_unknown=True)
        return row | {"is_given": row["position"][:, 0] == 0}

    def prompt_row(self, document: Document) -> RowFields:
        """Lay out a document with gaps. Given slots are fixed, and the model generates the gaps.

        Raises:
            UserError: the document is empty, has a symbol that is not in the vocabulary, has text
                after a gap of unknown length, has a gap that this layout does not support, or is
                longer than a row.
        """
        return self._make_row(document, allow_unknown=False)

    def edit_row(self, document: Document) -> RowFields:
        """Lay out a complete document for editing: all slots except BOS may change.

        Raises:
            UserError: the document is empty, has a symbol that is not in the vocabulary, or is
                longer than a row.
        """
        row = self._make_row(document, allow_unknown=False)
        return row | {"is_given": row["position"][:, 0] == 0}

    def canvas(self, rows: Sequence[RowFields]) -> Canvas:
        """Return a batch with one document per row. Rows are padded to `length` slots."""
        stacked = {
            name: np.stack([_pad(row[name], self.length) for row in rows]) for name in rows[0]
        }
        return Canvas(segment=(stacked["modality"] != Modality.PAD).astype(np.int32), **stacked)

    def decode(self, canvas: Canvas) -> list[Document]:
        """Decode a finished batch with one document per row; return the documents."""
        fields = {
            name: np.asarray(getattr(canvas, name))
            for name in ("ids", "latents", "modality", "span", "position", "is_given")
        }
        rows = [
            {name: values[b] for name, values in fields.items()}
            for b in range(len(canvas.modality))
        ]
        runs_by_row = [self._content_runs(row) for row in rows]
        pictures = iter(
            self.decode_images(
                [
                    (row["ids"][at], row["latents"][at], row["position"][at])
                    for row, runs in zip(rows, runs_by_row, strict=True)
                    for kind, at in runs
                    if kind == Modality.IMAGE
                ]
            )
        )
        return [
            Document(
                tuple(
                    Text(self._decode_text(row["ids"][at], row["is_given"][at]))
                    if kind == Modality.TEXT
                    else Image(next(pictures))
                    for kind, at in runs
                )
            )
            for row, runs in zip(rows, runs_by_row, strict=True)
        ]

    def decode_images(self, images: Sequence[ImageSlots]) -> list[np.ndarray]:
        """Decode the slots of images to uint8 images `[H W 3]`, which may differ in size."""
        # The codec may be a network, so decode all images of a shape at once.
        by_grid: dict[image_shapes.Size, list[int]] = {}
        for number, (_, _, position) in enumerate(images):
            rows, columns = position[:, 1:].max(axis=0) + 1
            by_grid.setdefault((int(rows), int(columns)), []).append(number)
        decoded: dict[int, np.ndarray] = {}
        for grid, numbers in by_grid.items():
            values = np.stack([images[n][0 if self.codec.num_codes else 1] for n in numbers])
            if self.codec.num_codes:
                # A slot that was never written does not hold a code. Clip its id to that of a
                # valid code.
                values = np.clip(values - self.vocab.codes.start, 0, self.codec.num_codes - 1)
            decoded |= zip(numbers, self.codec.decode(values, grid), strict=True)
        return [decoded[number] for number in range(len(images))]

    def find_ratio(self, part: Part) -> str:
        """Return the aspect ratio in `aspect_ratios` of an image or image gap.

        Raises:
            UserError: the layout has no such shape.
        """
        return self.shapes.find_ratio(*documents.get_proportions(part))

    def image_gap(self, part: Part) -> Gap:
        """Return the gap of the same shape as an image or image gap.

        Raises:
            UserError: the layout has no such shape.
        """
        return Gap("image", aspect_ratio=self.find_ratio(part))

    def image_grid(self, part: Part) -> image_shapes.Size:
        """Return the rows and columns of slots of an image or image gap.

        Raises:
            UserError: the layout has no such shape.
        """
        return self.shapes.grids[self.find_ratio(part)]

    def _encoded_fields(self, values: np.ndarray) -> RowFields:
        if not self.codec.num_codes:
            return {"latents": values}
        return {"ids": self.vocab.codes.start + values}

    def _content_runs(self, row: RowFields) -> list[tuple[Modality, np.ndarray]]:
        """Return the modality and slots of the text runs and images of a row.

        Runs that hold only markers are left out.
        """
        runs = iter_parts(row["modality"], row["span"], row["position"])
        return [
            (kind, at) for kind, at in runs if not np.isin(row["ids"][at], self.marker_ids).all()
        ]

    def _decode_text(self, ids: np.ndarray, fixed: np.ndarray) -> str:
        """Decode a text run. An <end> before given text marks an unused slot and is skipped."""
        given_indices = np.flatnonzero(fixed & (ids != vocabs.END))
        upto = given_indices[-1] + 1 if len(given_indices) else 0
        prefix = [token for token in ids[:upto].tolist() if token != vocabs.END]
        return self.vocab.decode(prefix + ids[upto:].tolist())

    def _make_row(self, document: Document, *, allow_unknown: bool) -> RowFields:
        if not document.parts:
            raise UserError("The document is empty. Give text, an image, or a gap.")
        self._check_length(document, self._count_least_slots(document), "at least ")
        pieces = [self._bos()]
        inside = document.parts
        if self.images_last:
            inside = sorted(inside, key=lambda part: not documents.is_text(part))
        for run in documents.group_runs(inside):
            order = int(pieces[-1]["position"][-1, 0]) + 1
            if not documents.is_text(run[0]) and self.has_markers:
                added = [
                    self._marker_slot(vocabs.IMAGE, order),
                    self._image_slots(run[0], order + 1),
                ]
            elif not documents.is_text(run[0]):
                added = [self._image_slots(run[0], order)]
            elif self.variable_length:
                added = self._text_with_gaps(run, order, pieces[-1], allow_unknown)
            else:
                added = [self._text_run(run, order, allow_unknown)]
            for piece in added:
                pieces.append(piece | {"span": np.full(len(piece["modality"]), len(pieces) + 1)})
        if self.has_markers and not pieces[-1]["insertable"][-1]:
            end = self._marker_slot(vocabs.END, int(pieces[-1]["position"][-1, 0]) + 1)
            pieces.append(end | {"span": np.full(1, len(pieces) + 1)})
        row = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        self._check_length(document, len(row["modality"]))
        return {
            name: values.astype({"latents": np.float32, "is_given": bool}.get(name, np.int32))
            for name, values in row.items()
        }

    def _check_length(self, document: Document, slots: int, least: str = "") -> None:
        if slots > self.length:
            raise UserError(
                f"The document needs {least}{slots} slots, but data.sequence_length={self.length}. "
                "Raise data.sequence_length, or shorten the document. It begins: "
                f"{_excerpt(document)}"
            )

    def _count_least_slots(self, document: Document) -> int:
        """Return a lower bound of a document's number of slots: those of BOS, images and text gaps.

        The caller checks this bound before it allocates memory for the slots.
        """
        return 1 + sum(
            (part.slots or 0)
            if isinstance(part, Gap) and part.kind == "text"
            else 0
            if documents.is_text(part)
            else math.prod(self.image_grid(part))
            for part in document.parts
        )

    def _bos(self) -> RowFields:
        slot = self._empty_slots(Modality.TEXT, np.array([vocabs.BOS]), np.array([True]))
        return slot | {"position": np.zeros((1, 3)), "span": np.ones(1)}

    def _marker_slot(self, token: int, order: int) -> RowFields:
        slot = self._empty_slots(Modality.TEXT, np.array([token]), np.array([True]))
        return slot | {"position": _positions(np.array([order]))}

    def _text_with_gaps(
        self, run: Sequence[Text | Gap], order: int, previous: RowFields, allow_unknown: bool
    ) -> list[RowFields]:
        """Lay out a text run. A gap makes the slot before it insertable.

        Before a gap at the beginning of the run, this slot is the last slot of `previous`.
        """
        pieces: list[RowFields] = []
        for part in run:
            if isinstance(part, Text):
                ids = np.array(self._encode_text(part.text, allow_unknown=allow_unknown))
                piece = self._empty_slots(Modality.TEXT, ids, np.ones(len(ids), bool))
                piece["position"] = _positions(order + np.arange(len(ids)))
                order += len(ids)
                pieces.append(piece)
            elif part.slots is not None:
                raise UserError(
                    f"<text:{part.slots}>: this model chooses the length. Write <text>."
                )
            else:
                (pieces or [previous])[-1]["insertable"][-1] = _INSERT_POLICIES[part.kind]
        return pieces

    def _text_run(self, run: Sequence[Text | Gap], order: int, allow_unknown: bool) -> RowFields:
        """Lay out one run of text and text gaps."""
        if Gap("document") in run:
            raise UserError(
                "<document>: this model generates one layout, which must be chosen first. Write "
                "<text> and <image> in order."
            )
        ids, is_given = [], []
        for part in run:
            if isinstance(part, Text):
                added = self._encode_text(part.text, allow_unknown=allow_unknown)
            else:
                added = [vocabs.END] * (part.slots or 0)
            ids += added
            is_given += [isinstance(part, Text)] * len(added)
        open_ended = [isinstance(part, Gap) and part.slots is None for part in run]
        if any(open_ended[:-1]):
            raise UserError(
                "Text follows a gap of unknown length. Give the number of missing tokens, "
                f"as in <text:3>. The run is: {_excerpt(Document(tuple(run)))}"
            )
        # The run has at least one slot for <end>. A gap of unknown length at its end gets at least
        # half of `text_slots`.
        at_least = len(ids) + (max(1, self.text_slots // 2) if open_ended[-1] else 1)
        slots = -(-at_least // self.text_slots) * self.text_slots
        rest = slots - len(ids)
        row = self._empty_slots(
            Modality.TEXT,
            np.array(ids + [vocabs.END] * rest),
            np.array(is_given + [not open_ended[-1]] * rest),
        )
        return row | {"position": _positions(order + np.arange(slots))}

    def _encode_text(self, text: str, *, allow_unknown: bool) -> list[int]:
        if allow_unknown:
            return self.vocab.encode(text, allow_unknown=True)
        return spelling.encode_prompt(self.vocab, text)

    def _image_slots(self, part: Image | EncodedImage | Gap, order: int) -> RowFields:
        """Lay out one given image or one image gap. All of its slots have the same `order`."""
        rows, columns = self.image_grid(part)
        slots = rows * columns
        is_given = not isinstance(part, Gap)
        row = self._empty_slots(Modality.IMAGE, np.zeros(slots), np.full(slots, is_given))
        if isinstance(part, Image):
            row |= self._encoded_fields(self.codec.encode(part.pixels))
        elif isinstance(part, EncodedImage):
            row |= self._encoded_fields(self.codec.from_stored(part.latents))
        if {len(row["ids"]), len(row["latents"])} != {slots}:
            raise UserError(
                f"An image of {documents.get_proportions(part)} pixels or latents does not fit "
                f"codec.pixels={self.codec.pixels}. Set codec.pixels, or resize the image."
            )
        at_row, at_column = np.divmod(np.arange(slots), columns)
        return row | {"position": _positions(np.full(slots, order), at_row, at_column)}

    def _empty_slots(self, kind: Modality, ids: np.ndarray, fixed: np.ndarray) -> RowFields:
        return {
            "ids": ids,
            "latents": np.zeros((len(ids), self.codec.channels)),
            "modality": np.full(len(ids), kind),
            "is_given": fixed,
            "insertable": np.full(len(ids), int(InsertPolicy.NONE)),
        }


def iter_parts(
    kind: np.ndarray, span: np.ndarray, position: np.ndarray
) -> Iterator[tuple[Modality, np.ndarray]]:
    """Yield the modality and slots of each text run and image of a row, without BOS.

    Runs and images come in reading order, which `position` gives. The order of slots in memory may
    differ. All text between two images is one run.
    """
    exists = np.flatnonzero((kind != Modality.PAD) & (position[:, 0] > 0))
    inside = exists[np.lexsort(position[exists].T[::-1])]
    pictures = np.where(kind[inside] == Modality.IMAGE, span[inside], 0)
    for _, run in itertools.groupby(zip(pictures, inside, strict=True), operator.itemgetter(0)):
        at = np.array([slot for _, slot in run])
        yield Modality(int(kind[at[0]])), at


def _positions(order: np.ndarray, *grid: np.ndarray) -> np.ndarray:
    row, column = grid or (np.zeros_like(order),) * 2
    return np.stack([order, row, column], axis=-1)


def _pad(values: np.ndarray, length: int) -> np.ndarray:
    return np.pad(values, [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1))


def _excerpt(document: Document) -> str:
    words = document.text()
    gaps = [str(part) for part in document.parts if isinstance(part, Gap) and part.slots]
    named = f", with {', '.join(gaps[:3])}" if gaps else ""
    return f"{words[:60]!r}{'...' if len(words) > 60 else ''}, {len(document.parts)} parts{named}"
