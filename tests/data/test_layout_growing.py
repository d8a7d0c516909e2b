"""Tests of the layout of documents of any length: no <end>, and gaps start empty."""

import numpy as np
import pytest

from oneflow_jax.canvas import InsertPolicy, Modality
from oneflow_jax.data import vocab
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.errors import UserError
from tests import tiny
from tests.data.test_layout import BLUE, IMAGE, OTHER_IMAGE, RED, encode


@pytest.fixture
def lay():
    return tiny.make_layout(length=40, text_slots=0)


def test_a_row_has_the_slots_of_its_words_and_pictures(lay):
    row = lay.row(Document((Text(RED), Image(IMAGE), Text(BLUE))))
    red, blue = encode(RED), encode(BLUE)
    np.testing.assert_array_equal(row["ids"], [vocab.BOS, *red, 0, 0, 0, 0, *blue])
    assert vocab.END not in row["ids"]
    n = len(red)
    order = [*range(n + 1), *[n + 1] * 4, *range(n + 2, n + 2 + len(blue))]
    np.testing.assert_array_equal(row["position"][:, 0], order)
    np.testing.assert_array_equal(row["is_given"], np.arange(len(order)) == 0)
    assert not row["insertable"].any()


def test_words_and_pictures_come_back(lay):
    document = Document((Text(RED), Image(IMAGE), Image(OTHER_IMAGE), Text(BLUE)))
    (read,) = lay.decode(lay.canvas([lay.row(document)]))
    assert read.text() == document.text()
    assert [type(part) for part in read.parts] == [type(part) for part in document.parts]


def test_a_gap_opens_what_it_follows_and_nothing_else(lay):
    red = len(encode(RED))
    prompt = Document((Gap("text"), Text(RED), Gap("document"), Image(IMAGE), Gap("text")))
    row = lay.prompt_row(prompt)
    opening = np.zeros(1 + red + 4, int)
    opening[0] = InsertPolicy.TEXT
    opening[red] = InsertPolicy.ANY
    opening[-1] = InsertPolicy.TEXT
    np.testing.assert_array_equal(row["insertable"], opening)
    assert row["is_given"].all()


def test_a_gap_between_words_stands_between_them(lay):
    row = lay.prompt_row(Document((Text(RED), Gap("text"), Text(BLUE))))
    assert np.flatnonzero(row["insertable"]).tolist() == [len(encode(RED))]
    np.testing.assert_array_equal(row["ids"], [vocab.BOS, *encode(RED), *encode(BLUE)])


def test_a_gap_for_a_picture_is_laid_out(lay):
    row = lay.prompt_row(Document((Gap("image"), Gap("text"))))
    np.testing.assert_array_equal(row["modality"], [Modality.TEXT, *[Modality.IMAGE] * 4])
    np.testing.assert_array_equal(row["is_given"], [True, *[False] * 4])
    np.testing.assert_array_equal(row["insertable"], [0, 0, 0, 0, InsertPolicy.TEXT])


def test_a_length_cannot_be_asked_for(lay):
    with pytest.raises(UserError, match="<text:3>: this model chooses the length"):
        lay.prompt_row(Document((Gap("text", 3),)))


def test_a_model_of_fixed_length_must_be_told_the_pictures():
    lay = tiny.make_layout(length=40, text_slots=8)
    with pytest.raises(UserError, match=r"Write <text> and <image> in order.*edit_flow"):
        lay.prompt_row(Document((Text(RED), Gap("document"))))
