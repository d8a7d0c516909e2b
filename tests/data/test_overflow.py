import dataclasses

import numpy as np
import pytest

from oneflow_jax.data import overflow, vocab
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.errors import UserError
from tests import tiny

IMAGE = Image(np.zeros((4, 4, 3), np.uint8))
TEXT = "a red square and a blue one, then green and yellow and black"

LAYOUTS = {
    "of fixed runs": tiny.make_layout(32, 8),
    "growing": tiny.make_layout(32, 0),
    "with markers": dataclasses.replace(tiny.make_layout(32, 0), has_markers=True),
    "images last": dataclasses.replace(tiny.make_layout(32, 0), has_markers=True, images_last=True),
}

DOCUMENTS = [
    Document(parts)
    for parts in (
        (Text("a red square"),),
        (IMAGE,),
        (IMAGE, IMAGE, Text("red")),
        (Text("a"), Text("b"), IMAGE, Text("red and blue"), IMAGE, Text("c")),
    )
]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_num_slots_equals_the_laid_out_row(name, document):
    layout = dataclasses.replace(LAYOUTS[name], length=500)
    assert overflow.count_slots(layout, document.parts) == len(layout.row(document)["modality"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_chunks_fit_and_are_complete(name):
    layout = LAYOUTS[name]
    long = Document((Text(TEXT), IMAGE, IMAGE, Text(TEXT + " " + TEXT * 4), IMAGE) * 2)
    pieces = overflow.split_document(layout, long)
    assert len(pieces) > 4
    for piece in pieces:
        assert len(layout.row(piece)["modality"]) <= layout.length
    assert " ".join(piece.text() for piece in pieces).split() == long.text().split()
    assert sum(len(piece.images()) for piece in pieces) == 6


def test_fitting_parts_stay_whole_and_in_order():
    layout = LAYOUTS["growing"]
    assert overflow.split_document(layout, DOCUMENTS[3]) == [DOCUMENTS[3]]
    pieces = overflow.split_document(
        layout, Document((Text(TEXT), IMAGE, Text("end"), IMAGE, IMAGE))
    )
    kinds = [type(part) for piece in pieces for part in piece.parts]
    assert kinds == [Text, Image, Text, Image, Image]


@pytest.mark.parametrize("text", ["x" * 3000, "漢字" * 500, "a " * 999 + "b" * 999])
def test_long_words_are_cut_inside(text):
    layout = LAYOUTS["growing"]
    pieces = overflow.split_document(layout, Document((Text(text),)))
    assert "".join(piece.text() for piece in pieces).replace(" ", "") == text.replace(" ", "")
    assert all(len(layout.row(piece)["modality"]) <= layout.length for piece in pieces)


NFKC_LAYOUT = dataclasses.replace(LAYOUTS["growing"], vocab=vocab.Vocab.load(tiny.EMOJI_TOKENIZER))
"""Layout with a tokenizer that converts some characters to spaces."""


def test_text_without_tokens_is_omitted():
    layout = NFKC_LAYOUT
    assert overflow.split_document(layout, Document((Text("\u2581"),))) == []
    (piece,) = overflow.split_document(layout, Document((Text("\ufffd"), IMAGE)))
    assert piece.parts == (IMAGE,)


def test_policies():
    layout = NFKC_LAYOUT
    source = [DOCUMENTS[0], Document((Text(TEXT * 9),)), DOCUMENTS[1], Document((Text("\ufffd"),))]
    cut = overflow.count_chunks(source, layout, "split")
    assert (cut[0], cut[2], cut[3]) == (1, 1, 0)
    assert cut[1] > 3
    assert overflow.count_chunks(source, layout, "drop").tolist() == [1, 0, 1, 0]
    with pytest.raises(UserError, match=r"Document 1 needs \d+ slots, but data\.sequence_len.*=32"):
        overflow.count_chunks(source, layout, "error")
    with pytest.raises(UserError, match=r"data\.overflow='trim': "):
        overflow.count_chunks(source, layout, "trim")

    fitted = overflow.ChunkedSource(source, layout, cut)
    assert len(fitted) == cut.sum()
    assert fitted[0] == DOCUMENTS[0]
    assert fitted[len(fitted) - 1] == DOCUMENTS[1]
    middle = [fitted[n] for n in range(1, len(fitted) - 1)]
    assert " ".join(piece.text() for piece in middle).split() == (TEXT * 9).split()
    for index in (-1, len(fitted)):
        with pytest.raises(IndexError):
            fitted[index]


def test_image_without_room_is_reported():
    with pytest.raises(UserError, match="An image needs 5 slots"):
        overflow.split_document(tiny.make_layout(4, 0), Document((IMAGE,)))
