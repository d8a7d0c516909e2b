import json

import numpy as np
import pytest

from oneflow_jax.data import document, image_io, records


def test_round_trip_keeps_order_text_and_pixels():
    first, second = np.full((4, 4, 3), 7, np.uint8), np.full((5, 6, 3), 9, np.uint8)
    before = document.Document(
        (
            document.Image(first),
            document.Text("größer <3"),
            document.Image(second),
            document.Text("end"),
        )
    )
    example = records.encode(before)
    stored = {
        "document": example["document"].encode(),
        "images": [image_io.from_png(image) for image in example["images"]],
    }
    after = records.decode(stored)
    assert after.text() == "größer <3 end"
    assert [type(part) for part in after.parts] == [type(part) for part in before.parts]
    np.testing.assert_array_equal(after.images()[0], first)
    np.testing.assert_array_equal(after.images()[1], second)


def test_the_format_on_disk():
    picture = document.Image(np.zeros((2, 2, 3), np.uint8))
    example = records.encode(document.Document((picture, document.Text("a"), picture)))
    assert json.loads(example["document"]) == [{"image": 0}, {"text": "a"}, {"image": 1}]


def test_a_gap_is_refused():
    with pytest.raises(TypeError, match="gaps cannot be stored; this one has <image>"):
        records.encode(document.Document((document.Gap("image"),)))


def test_an_outline_has_the_texts_and_a_gap_for_each_image():
    image = document.Image(np.zeros((4, 4, 3), np.uint8))
    whole = document.Document((document.Text("a fox"), image, document.Text("two"), image))
    record = records.serialize(whole)
    gap = document.Gap("image")
    expected = (document.Text("a fox"), gap, document.Text("two"), gap)
    assert records.deserialize_outline(record).parts == expected
    assert records.deserialize(record).text() == whole.text()


def test_records_of_images_that_are_not_square_have_their_shape():
    images = [document.Image(np.zeros((*size, 3), np.uint8)) for size in ((6, 10), (4, 4), (9, 6))]
    whole = document.Document(tuple(images))
    expected = [{"image": 0, "ratio": "5:3"}, {"image": 1}, {"image": 2, "ratio": "2:3"}]
    assert json.loads(records.encode(whole)["document"]) == expected
    gaps = records.deserialize_outline(records.serialize(whole)).parts
    assert list(map(str, gaps)) == ["<image 5:3>", "<image>", "<image 2:3>"]
    sizes = [image.shape for image in records.deserialize(records.serialize(whole)).images()]
    assert sizes == [(6, 10, 3), (4, 4, 3), (9, 6, 3)]
