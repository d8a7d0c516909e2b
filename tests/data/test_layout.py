import dataclasses
import tracemalloc

import numpy as np
import pytest

from oneflow_jax.canvas import Modality
from oneflow_jax.data import layout, vocab
from oneflow_jax.data.document import Document, EncodedImage, Gap, Image, Text
from oneflow_jax.errors import UserError
from tests import tiny

IMAGE = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
OTHER_IMAGE = np.random.default_rng(1).integers(0, 256, (4, 4, 3)).astype(np.uint8)
RED, BLUE = "a picture of red", "a picture of blue"


@pytest.fixture
def lay():
    return tiny.make_layout(length=40, text_slots=8)


def encode(text):
    return tiny.vocabulary().encode(text)


def test_text_and_images_round_trip(lay):
    parts = (Text(RED), Image(IMAGE), Image(OTHER_IMAGE), Text(BLUE))
    documents = [Document(parts), Document((Image(OTHER_IMAGE),)), Document((Text(BLUE),))]
    back = lay.decode(lay.canvas([lay.row(document) for document in documents]))
    for original, read in zip(documents, back, strict=True):
        assert [type(part) for part in read.parts] == [type(part) for part in original.parts]
        assert read.text() == original.text()
        for original_image, read_image in zip(original.images(), read.images(), strict=True):
            np.testing.assert_array_equal(original_image, read_image)


def test_row_matches_the_docstring(lay):
    row = lay.row(Document((Text(RED), Image(IMAGE), Text(BLUE))))
    red = encode(RED)
    run = [*red, *[vocab.END] * (8 - len(red))]
    np.testing.assert_array_equal(row["ids"][:9], [vocab.BOS, *run])
    np.testing.assert_array_equal(row["ids"][9:13], 0)
    np.testing.assert_array_equal(
        row["modality"], [Modality.TEXT] * 9 + [Modality.IMAGE] * 4 + [Modality.TEXT] * 8
    )
    np.testing.assert_array_equal(row["span"], [1] + [2] * 8 + [3] * 4 + [4] * 8)
    np.testing.assert_array_equal(row["position"][:, 0], [*range(9), 9, 9, 9, 9, *range(10, 18)])
    np.testing.assert_array_equal(row["position"][9:13, 1:], [[0, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(np.delete(row["position"][:, 1:], range(9, 13), 0), 0)
    np.testing.assert_array_equal(row["latents"][9:13], tiny.CODEC.encode(IMAGE))
    np.testing.assert_array_equal(np.delete(row["latents"], range(9, 13), 0), 0)
    # In training, only BOS is given.
    np.testing.assert_array_equal(row["is_given"], [True] + [False] * 20)


def test_padding_is_zero_in_every_field(lay):
    canvas = lay.canvas([lay.row(Document((Text(RED),))), lay.row(Document((Image(IMAGE),)))])
    for name in ("ids", "latents", "modality", "segment", "span", "position", "is_given"):
        values = getattr(canvas, name)
        assert values.shape[:2] == (2, 40)
        assert not values[0, 9:].any(), name
        assert not values[1, 5:].any(), name
    np.testing.assert_array_equal(canvas.segment[0], [1] * 9 + [0] * 31)


def test_text_that_fills_its_slots_gets_room_for_end(lay):
    words = "red " * 20
    assert len(encode(words)) % 8 != 7
    exact = " ".join(["red"] * (8 // len(encode("red"))))
    assert len(encode(exact)) == 8
    row = lay.row(Document((Text(exact),)))
    np.testing.assert_array_equal(row["ids"][1:], [*encode(exact), *[vocab.END] * 8])


def test_adjacent_texts_form_one_run(lay):
    row = lay.row(Document((Text("a picture"), Text("of red"), Image(IMAGE))))
    assert row["span"].max() == 3
    assert list(row["ids"][1:9][: len(encode("a picture"))]) == encode("a picture")


def test_a_document_that_is_too_long_names_the_field(lay):
    parts = (Image(IMAGE),) * 9 + (Text(RED),)
    message = r"needs 45 slots, but data\.sequence_length=40.*a picture of red"
    with pytest.raises(UserError, match=message):
        lay.row(Document(parts))
    assert len(lay.row(Document((Image(IMAGE),) * 9))["modality"]) == 37


def test_invalid_documents_are_refused(lay):
    with pytest.raises(UserError, match="empty"):
        lay.row(Document(()))
    with pytest.raises(UserError, match="gap"):
        lay.row(Document((Text(RED), Gap("image"))))
    with pytest.raises(UserError, match="<text:3>"):
        lay.prompt_row(Document((Gap("text"), Text(RED))))
    with pytest.raises(UserError, match="the tokenizer has no token"):
        lay.prompt_row(Document((Text("ж"),)))
    # Training documents may contain symbols that the tokenizer does not have.
    assert vocab.UNKNOWN in lay.row(Document((Text("ж"),)))["ids"]


def test_prompt_fixes_given_text_and_the_end_of_its_run(lay):
    row = lay.prompt_row(Document((Text(RED), Image(IMAGE))))
    assert row["is_given"].all()
    np.testing.assert_array_equal(row["ids"][1 + len(encode(RED)) : 9], vocab.END)


def test_image_gap_is_free_and_empty(lay):
    row = lay.prompt_row(Document((Text(RED), Gap("image"), Image(IMAGE))))
    np.testing.assert_array_equal(row["is_given"], [True] * 9 + [False] * 4 + [True] * 4)
    assert not row["latents"][9:13].any()
    np.testing.assert_array_equal(row["modality"][9:17], Modality.IMAGE)
    np.testing.assert_array_equal(row["span"][9:17], [3] * 4 + [4] * 4)


def test_gap_of_fixed_length_is_free_and_the_rest_is_given(lay):
    row = lay.prompt_row(Document((Text("a"), Gap("text", 3), Text("red"))))
    a, red = len(encode("a")), len(encode("red"))
    free = np.flatnonzero(~row["is_given"])
    np.testing.assert_array_equal(free, 1 + a + np.arange(3))
    assert list(row["ids"][1 : 1 + a]) == encode("a")
    assert list(row["ids"][4 + a : 4 + a + red]) == encode("red")
    np.testing.assert_array_equal(row["ids"][4 + a + red :], vocab.END)


def test_open_gap_is_free_to_the_end_of_its_run(lay):
    row = lay.prompt_row(Document((Gap("text"),)))
    np.testing.assert_array_equal(row["is_given"], [True] + [False] * 8)
    row = lay.prompt_row(Document((Text(RED), Gap("text"))))
    num_given = 1 + len(encode(RED))
    assert row["is_given"][:num_given].all()
    assert not row["is_given"][num_given:].any()
    # There is room for more than <end>.
    assert len(row["is_given"]) - num_given >= 4
    assert (len(row["is_given"]) - 1) % 8 == 0


def test_parts_are_decoded_in_reading_order(lay):
    row = lay.row(Document((Image(IMAGE), Text(RED), Image(OTHER_IMAGE))))
    there = lay.canvas([row])
    shuffled = np.random.default_rng(0).permutation(lay.length)
    for order in (np.arange(lay.length), shuffled):
        kind, span, position = (
            getattr(there, name)[0][order] for name in ("modality", "span", "position")
        )
        parts = list(layout.iter_parts(kind, span, position))
        assert [kind for kind, _ in parts] == [Modality.IMAGE, Modality.TEXT, Modality.IMAGE]
        slots = [order[at].tolist() for _, at in parts]
        assert slots == [list(range(1, 5)), list(range(5, 13)), list(range(13, 17))]


def test_given_text_after_an_end_in_a_gap_is_kept(lay):
    prompt = Document((Gap("text", 3), Text(RED)))
    # The gap's slots hold <end> until they are generated.
    canvas = lay.canvas([lay.prompt_row(prompt)])
    (document,) = lay.decode(canvas)
    assert document.text() == RED


def test_stored_latents_give_the_row_of_the_image(lay):
    def values(picture):
        return EncodedImage(picture.astype(np.float32) / 127.5 - 1)

    row = lay.row(Document((Text(RED), Image(IMAGE), Image(OTHER_IMAGE), Text(BLUE))))
    same = lay.row(Document((Text(RED), values(IMAGE), values(OTHER_IMAGE), Text(BLUE))))
    assert row.keys() == same.keys()
    for name in row:
        np.testing.assert_allclose(same[name], row[name], atol=1e-6, err_msg=name)
        assert same[name].dtype == row[name].dtype
    prompt = lay.prompt_row(Document((values(IMAGE), Gap("text"))))
    assert prompt["is_given"][:5].all()
    np.testing.assert_allclose(prompt["latents"][1:5], tiny.CODEC.encode(IMAGE), atol=1e-6)


def test_images_of_a_batch_are_decoded_in_one_call(lay):
    codec = tiny.CountingCodec(lay.codec)
    lay = dataclasses.replace(lay, codec=codec)
    documents = [
        Document((Text(RED), Image(IMAGE), Text(BLUE), Image(OTHER_IMAGE))),
        Document((Text(BLUE),)),
        Document((Image(OTHER_IMAGE), Image(OTHER_IMAGE), Image(IMAGE))),
    ]
    read = lay.decode(lay.canvas([lay.row(document) for document in documents]))
    assert codec.decode_counts == [5]
    for actual, expected in zip(read, documents, strict=True):
        for decoded, picture in zip(actual.images(), expected.images(), strict=True):
            np.testing.assert_array_equal(decoded, picture)
    codec.decode_counts.clear()
    assert lay.decode(lay.canvas([lay.row(documents[1])]))[0].text() == BLUE
    assert codec.decode_counts == []


@pytest.mark.parametrize(
    "parts",
    [
        (Gap("text", 30_000_000),),
        (Text(RED), *[Gap("text", 20_000_000)] * 2, Gap("image")),
        (Gap("image"),) * 100_000,
        (Image(IMAGE),) * 50_000,
    ],
)
@pytest.mark.parametrize("text_slots", [8, 0])
def test_too_many_slots_are_refused_before_they_take_memory(parts, text_slots):
    if text_slots == 0 and isinstance(parts[-1], Gap):
        parts = (*parts, Gap("image"))
    layout = tiny.make_layout(length=40, text_slots=text_slots)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"data\.sequence_length=40"):
            layout.prompt_row(Document(parts))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
