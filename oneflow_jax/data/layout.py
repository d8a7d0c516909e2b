"""Documents laid out as slots, and read back: the bridge between people's side and arrays.

    BOS | text run: its tokens, <end> to the end of the run | picture: its patches | text run ...

A text run has a multiple of `text_slots` slots, at least one of them <end>, so that a model of
fixed length can write shorter texts: it learns to emit <end> too. A model that inserts needs none
of this: with `text_slots` 0 a run has the slots of its words, and a gap is no slot but an opening.
"""

import dataclasses
import itertools
import operator
from collections.abc import Iterator, Sequence

import numpy as np

from oneflow_jax.canvas import Canvas, InsertPolicy, Modality
from oneflow_jax.codecs.base import Codec
from oneflow_jax.data import document as documents
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.document import Document, EncodedImage, Gap, Image, Text
from oneflow_jax.errors import UserError

_INSERT_POLICIES = {"text": int(InsertPolicy.WORDS), "document": int(InsertPolicy.ANYTHING)}

RowFields = dict[str, np.ndarray]
"""The fields of one `Canvas` row but `segment`, of the document's own length."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How documents become rows of slots.

    Attributes:
        vocab: ids of words.
        codec: latents of pictures.
        length: slots of a row, L.
        text_slots: text runs are multiples of this long; 0 for exactly as long as their words.
        text_first: whether all words of a document stand before its pictures.
        markers: whether <image> stands before each picture and <end> after each document, for
            models that write from left to right.
    """

    vocab: vocabs.IdRanges
    codec: Codec
    length: int
    text_slots: int
    markers: bool = False
    text_first: bool = False

    @property
    def grows(self) -> bool:
        """Whether documents take as many slots as they need, and gaps are openings."""
        return self.text_slots == 0

    @property
    def silent(self) -> tuple[int, ...]:
        """Tokens that only mark where something begins or ends."""
        return (vocabs.IMAGE, vocabs.END) if self.markers else ()

    def row(self, document: Document) -> RowFields:
        """The slots of a training document: all of it is the model's to learn, but BOS.

        Raises:
            UserError: it has nothing in it, has gaps, or is longer than a row.
        """
        if any(isinstance(part, Gap) for part in document.parts):
            raise UserError(f"A training document has a gap in it: {_excerpt(document)}")
        row = self._row(document, allow_unknown=True)
        return row | {"fixed": row["position"][:, 0] == 0}

    def prompt(self, document: Document) -> RowFields:
        """The slots of a document with gaps: what is given is fixed, the gaps are free.

        Raises:
            UserError: it has nothing in it or a symbol that the vocabulary lacks, a gap of unknown
                length is followed by words, or it is longer than a row.
        """
        return self._row(document, allow_unknown=False)

    def revision(self, document: Document) -> RowFields:
        """The slots of a finished document that is to be looked over: all but BOS may change.

        Raises:
            UserError: as for `prompt`.
        """
        row = self._row(document, allow_unknown=False)
        return row | {"fixed": row["position"][:, 0] == 0}

    def canvas(self, rows: Sequence[RowFields]) -> Canvas:
        """A batch with one document in each row, padded to the row's length."""
        stacked = {
            name: np.stack([_pad(row[name], self.length) for row in rows]) for name in rows[0]
        }
        return Canvas(segment=(stacked["kind"] != Modality.PAD).astype(np.int32), **stacked)

    def read(self, canvas: Canvas) -> list[Document]:
        """The document in each row of a finished batch with one document in each row."""
        fields = {
            name: np.asarray(getattr(canvas, name))
            for name in ("ids", "latents", "kind", "span", "position", "fixed")
        }
        rows = [
            {name: values[b] for name, values in fields.items()} for b in range(len(canvas.kind))
        ]
        found = [self._parts(row) for row in rows]
        # All pictures of the batch at once, since a codec may be a network.
        content = [
            (row["ids"][at], row["latents"][at])
            for row, runs in zip(rows, found, strict=True)
            for kind, at in runs
            if kind == Modality.IMAGE
        ]
        stacked = map(np.stack, zip(*content, strict=True))
        pictures = iter(self.pictures(*stacked) if content else ())
        return [
            Document(
                tuple(
                    Text(self._words(row["ids"][at], row["fixed"][at]))
                    if kind == Modality.TEXT
                    else Image(next(pictures))
                    for kind, at in runs
                )
            )
            for row, runs in zip(rows, found, strict=True)
        ]

    def pictures(self, ids: np.ndarray, latents: np.ndarray) -> np.ndarray:
        """Pictures, uint8 `[n H W 3]`, of what their slots hold: ids `[n N]`, latents `[n N C]`."""
        if not self.codec.codes:
            return self.codec.decode(latents)
        # A slot that was never written holds no code.
        return self.codec.decode(np.clip(ids - self.vocab.codes.start, 0, self.codec.codes - 1))

    def _content(self, encoded: np.ndarray) -> RowFields:
        if not self.codec.codes:
            return {"latents": encoded}
        return {"ids": self.vocab.codes.start + encoded}

    def _parts(self, row: RowFields) -> list[tuple[Modality, np.ndarray]]:
        """The runs of words and the pictures of a row; markers alone are no words."""
        every = iter_parts(row["kind"], row["span"], row["position"])
        return [(kind, at) for kind, at in every if not np.isin(row["ids"][at], self.silent).all()]

    def _words(self, ids: np.ndarray, fixed: np.ndarray) -> str:
        """The words of a run; an <end> before given words is a slot that was not needed."""
        given = np.flatnonzero(fixed & (ids != vocabs.END))
        upto = given[-1] + 1 if len(given) else 0
        kept = [token for token in ids[:upto].tolist() if token != vocabs.END]
        return self.vocab.decode(kept + ids[upto:].tolist())

    def _row(self, document: Document, *, allow_unknown: bool) -> RowFields:
        if not document.parts:
            raise UserError("The document is empty: give it words, a picture, or a gap.")
        pieces = [self._start()]
        inside = document.parts
        if self.text_first:
            inside = sorted(inside, key=lambda part: not documents.is_text(part))
        for run in documents.group_runs(inside):
            order = int(pieces[-1]["position"][-1, 0]) + 1
            if not documents.is_text(run[0]) and self.markers:
                added = [self._marker(vocabs.IMAGE, order), self._picture(run[0], order + 1)]
            elif not documents.is_text(run[0]):
                added = [self._picture(run[0], order)]
            elif self.grows:
                added = self._open_text(run, order, pieces[-1], allow_unknown)
            else:
                added = [self._text(run, order, allow_unknown)]
            for piece in added:
                pieces.append(piece | {"span": np.full(len(piece["kind"]), len(pieces) + 1)})
        if self.markers and not pieces[-1]["opening"][-1]:
            end = self._marker(vocabs.END, int(pieces[-1]["position"][-1, 0]) + 1)
            pieces.append(end | {"span": np.full(1, len(pieces) + 1)})
        row = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        slots = len(row["kind"])
        if slots > self.length:
            raise UserError(
                f"The document needs {slots} slots, but data.length={self.length}: raise "
                f"data.length, or shorten it. It begins: {_excerpt(document)}"
            )
        return {
            name: values.astype({"latents": np.float32, "fixed": bool}.get(name, np.int32))
            for name, values in row.items()
        }

    def _start(self) -> RowFields:
        slot = self._slots(Modality.TEXT, np.array([vocabs.BOS]), np.array([True]))
        return slot | {"position": np.zeros((1, 3)), "span": np.ones(1)}

    def _marker(self, token: int, order: int) -> RowFields:
        slot = self._slots(Modality.TEXT, np.array([token]), np.array([True]))
        return slot | {"position": _positions(np.array([order]))}

    def _open_text(
        self, run: Sequence[Text | Gap], order: int, before: RowFields, allow_unknown: bool
    ) -> list[RowFields]:
        """The words of a run; each gap opens the slot that it follows, `before` at first."""
        pieces: list[RowFields] = []
        for part in run:
            if isinstance(part, Text):
                ids = np.array(self.vocab.encode(part.text, allow_unknown=allow_unknown))
                piece = self._slots(Modality.TEXT, ids, np.ones(len(ids), bool))
                piece["position"] = _positions(order + np.arange(len(ids)))
                order += len(ids)
                pieces.append(piece)
            elif part.slots is not None:
                raise UserError(
                    f"<text:{part.slots}>: this model chooses lengths itself; write <text>."
                )
            else:
                (pieces or [before])[-1]["opening"][-1] = _INSERT_POLICIES[part.kind]
        return pieces

    def _text(self, run: Sequence[Text | Gap], order: int, allow_unknown: bool) -> RowFields:
        """One run of words and gaps for words."""
        if Gap("document") in run:
            raise UserError(
                "<document>: this model must be told how many pictures there are: write <text> "
                "and <image> in order, or train with paradigm.name=edit_flow."
            )
        ids, given = [], []
        for part in run:
            if isinstance(part, Text):
                added = self.vocab.encode(part.text, allow_unknown=allow_unknown)
            else:
                added = [vocabs.END] * (part.slots or 0)
            ids += added
            given += [isinstance(part, Text)] * len(added)
        open_ended = [isinstance(part, Gap) and part.slots is None for part in run]
        if any(open_ended[:-1]):
            raise UserError(
                "Words follow a gap whose length is not given: write how many tokens are missing, "
                f"as in <text:3>. The run is: {_excerpt(Document(tuple(run)))}"
            )
        # An open end is left room for more than <end>.
        at_least = len(ids) + (max(1, self.text_slots // 2) if open_ended[-1] else 1)
        slots = -(-at_least // self.text_slots) * self.text_slots
        rest = slots - len(ids)
        row = self._slots(
            Modality.TEXT,
            np.array(ids + [vocabs.END] * rest),
            np.array(given + [not open_ended[-1]] * rest),
        )
        return row | {"position": _positions(order + np.arange(slots))}

    def _picture(self, part: Image | EncodedImage | Gap, order: int) -> RowFields:
        """One picture, given or to be made; all of its slots bear one order."""
        rows, columns = self.codec.grid
        slots = rows * columns
        given = not isinstance(part, Gap)
        row = self._slots(Modality.IMAGE, np.zeros(slots), np.full(slots, given))
        if isinstance(part, Image):
            row |= self._content(self.codec.encode(part.pixels))
        elif isinstance(part, EncodedImage):
            row |= self._content(self.codec.arrange(part.latents))
        at_row, at_column = np.divmod(np.arange(slots), columns)
        return row | {"position": _positions(np.full(slots, order), at_row, at_column)}

    def _slots(self, kind: Modality, ids: np.ndarray, fixed: np.ndarray) -> RowFields:
        return {
            "ids": ids,
            "latents": np.zeros((len(ids), self.codec.channels)),
            "kind": np.full(len(ids), kind),
            "fixed": fixed,
            "opening": np.full(len(ids), int(InsertPolicy.CLOSED)),
        }


def iter_parts(
    kind: np.ndarray, span: np.ndarray, position: np.ndarray
) -> Iterator[tuple[Modality, np.ndarray]]:
    """The kind and the slots of each text run and picture of a row, in reading order, without BOS.

    Where slots lie does not matter: `position` is their order. Text between two pictures is one
    run.
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
    words = document.words()
    return f"{words[:60]!r}{'...' if len(words) > 60 else ''}, {len(document.parts)} parts"
