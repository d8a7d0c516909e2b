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


def test_row_has_one_slot_per_token_and_patch(lay):
    row = lay.row(Document((Text(RED), Image(IMAGE), Text(BLUE))))
    red, blue = encode(RED), encode(BLUE)
    np.testing.assert_array_equal(row["ids"], [vocab.BOS, *red, 0, 0, 0, 0, *blue])
    assert vocab.END not in row["ids"]
    n = len(red)
    order = [*range(n + 1), *[n + 1] * 4, *range(n + 2, n + 2 + len(blue))]
    np.testing.assert_array_equal(row["position"][:, 0], order)
    np.testing.assert_array_equal(row["is_given"], np.arange(len(order)) == 0)
    assert not row["insertable"].any()


def test_text_and_images_round_trip(lay):
    document = Document((Text(RED), Image(IMAGE), Image(OTHER_IMAGE), Text(BLUE)))
    (read,) = lay.decode(lay.canvas([lay.row(document)]))
    assert read.text() == document.text()
    assert [type(part) for part in read.parts] == [type(part) for part in document.parts]


def test_gap_makes_only_the_previous_slot_insertable(lay):
    red = len(encode(RED))
    prompt = Document((Gap("text"), Text(RED), Gap("document"), Image(IMAGE), Gap("text")))
    row = lay.prompt_row(prompt)
    opening = np.zeros(1 + red + 4, int)
    opening[0] = InsertPolicy.TEXT
    opening[red] = InsertPolicy.ANY
    opening[-1] = InsertPolicy.TEXT
    np.testing.assert_array_equal(row["insertable"], opening)
    assert row["is_given"].all()


def test_gap_between_texts_keeps_their_order(lay):
    row = lay.prompt_row(Document((Text(RED), Gap("text"), Text(BLUE))))
    assert np.flatnonzero(row["insertable"]).tolist() == [len(encode(RED))]
    np.testing.assert_array_equal(row["ids"], [vocab.BOS, *encode(RED), *encode(BLUE)])


def test_image_gap_has_slots(lay):
    row = lay.prompt_row(Document((Gap("image"), Gap("text"))))
    np.testing.assert_array_equal(row["modality"], [Modality.TEXT, *[Modality.IMAGE] * 4])
    np.testing.assert_array_equal(row["is_given"], [True, *[False] * 4])
    np.testing.assert_array_equal(row["insertable"], [0, 0, 0, 0, InsertPolicy.TEXT])


def test_gap_of_fixed_length_is_refused(lay):
    with pytest.raises(UserError, match="<text:3>: this model chooses the length"):
        lay.prompt_row(Document((Gap("text", 3),)))


def test_document_gap_is_refused_for_fixed_length():
    lay = tiny.make_layout(length=40, text_slots=8)
    with pytest.raises(UserError, match="one layout, which must be chosen first"):
        lay.prompt_row(Document((Text(RED), Gap("document"))))
