"""Tests of rows whose images have several aspect ratios."""

import dataclasses
import functools

import numpy as np
import pytest

from oneflow_jax.canvas import Modality
from oneflow_jax.codecs.autoencoder.codec import LatentCodec
from oneflow_jax.codecs.patches import PatchCodec
from oneflow_jax.data import image_shapes, known_layouts, overflow, records
from oneflow_jax.data.document import Document, EncodedImage, Gap, Image, Text
from oneflow_jax.data.layout import Layout
from oneflow_jax.errors import UserError
from tests import tiny
from tests.codecs.autoencoder import small_models

RATIOS = ("1:1", "3:2", "2:3")
GRIDS = {"1:1": (4, 4), "3:2": (3, 5), "2:3": (5, 3)}
RED = "a picture of red"


@functools.cache
def make_layout(kind="patches", ratios=RATIOS):
    """Return a layout with squares of 4 x 4 slots of 4 pixels."""
    if kind == "patches":
        codec = PatchCodec(pixels=16, patch_size=4, image_channels=3, mean=0.0, std=1.0)
    else:
        autoencoder = small_models.random_autoencoder(small_models.KL)
        codec = LatentCodec(autoencoder, 16, 2, mean=(0.1,) * 3, std=(0.5,) * 3, divisor=2.0)
    return Layout(tiny.vocabulary(), codec, 64, 8, aspect_ratios=ratios)


def make_image(ratio, seed=0):
    rows, columns = GRIDS[ratio]
    return Image(small_models.random_images(1, 4 * rows, 4 * columns, seed)[0])


def make_documents():
    """Return documents with one image of each shape, and one with all shapes."""
    images = [make_image(ratio) for ratio in RATIOS]
    return [
        *(Document((Text(RED), image)) for image in images),
        Document((images[1], Text(RED), images[2], images[0], make_image("3:2", 1))),
    ]


def test_patches_of_all_shapes_round_trip():
    layout = make_layout()
    documents = make_documents()
    decoded = layout.decode(layout.canvas([layout.row(each) for each in documents[:3]]))
    for before, after in zip(documents[:3], decoded, strict=True):
        np.testing.assert_array_equal(after.images()[0], before.images()[0])
        assert after.text() == RED


def test_a_document_with_images_of_several_shapes_round_trips():
    layout = dataclasses.replace(make_layout(), length=96)
    document = make_documents()[-1]
    (decoded,) = layout.decode(layout.canvas([layout.row(document)]))
    assert [type(part) for part in decoded.parts] == [type(part) for part in document.parts]
    for before, after in zip(document.images(), decoded.images(), strict=True):
        np.testing.assert_array_equal(after, before)


def test_latents_of_all_shapes_round_trip():
    """A stored image has the slots of its pixels, and is decoded as the autoencoder decodes it."""
    layout = make_layout("latents")
    autoencoder = layout.codec.autoencoder
    for ratio in RATIOS:
        image = make_image(ratio)
        (stored,) = autoencoder.encode(image.pixels[None])
        rows = [layout.row(Document((part, Text(RED)))) for part in (image, EncodedImage(stored))]
        for name, values in rows[0].items():
            np.testing.assert_allclose(values, rows[1][name], atol=1e-5)
        (decoded,) = layout.decode(layout.canvas([rows[1]]))
        (expected,) = autoencoder.decode(stored[None])
        assert decoded.images()[0].shape == image.pixels.shape
        assert abs(decoded.images()[0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("is_gap", [False, True])
def test_an_image_has_the_positions_of_its_own_grid(ratio, is_gap):
    layout, (rows, columns) = make_layout(), GRIDS[ratio]
    part = Gap("image", aspect_ratio=ratio) if is_gap else make_image(ratio)
    row = layout.prompt_row(Document((part, Text(RED), Gap("text"))))
    image = row["modality"] == Modality.IMAGE
    expected = [[1, r, c] for r in range(rows) for c in range(columns)]
    assert row["position"][image].tolist() == expected
    assert (row["is_given"][image] == (not is_gap)).all()
    assert np.unique(row["span"][image]).tolist() == [2]
    assert image.sum() <= 16  # the slots of a square
    assert (row["position"][~image][:, 1:] == 0).all()


def test_slots_are_counted_as_they_are_laid_out():
    layout = make_layout()
    for document in make_documents()[:3]:
        outline = records.deserialize_outline(records.serialize(document))
        slots = len(layout.row(document)["modality"])
        assert overflow.count_slots(layout, document.parts) == slots
        assert overflow.count_slots(layout, outline.parts) == slots
        assert layout.image_gap(document.parts[1]) == layout.image_gap(outline.parts[1])
    assert overflow.count_shapes(make_documents(), layout, 10) == {"1:1": 2, "3:2": 3, "2:3": 2}


def test_images_of_other_shapes_or_sizes_are_refused():
    layout = make_layout()
    square = make_layout(ratios=("1:1",))
    with pytest.raises(UserError, match=r"<image 3:2>.*data\.aspect_ratios=\('1:1',\)"):
        square.prompt_row(Document((Gap("image", aspect_ratio="3:2"),)))
    with pytest.raises(UserError, match=r"<image 5:3>"):
        square.row(Document((make_image("3:2"),)))
    for pixels in (np.zeros((24, 40, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(UserError, match=r"codec\.pixels=16"):
            layout.row(Document((Image(pixels),)))


def test_the_layout_of_a_document_has_the_shapes_of_its_images():
    layout, documents = make_layout(), make_documents()[:3]
    known = known_layouts.count([*documents, documents[1]], layout)
    assert known.layouts == ((8, "3:2"), (8, "1:1"), (8, "2:3"))
    assert known_layouts.KnownLayouts.from_json(known.to_json()) == known
    drawn = known_layouts.fit(Document((Gap("document"),)), layout, known)
    np.testing.assert_allclose(drawn.probs, [0.5, 0.25, 0.25])
    for prompt, document in zip(drawn.prompts, [documents[n] for n in (1, 0, 2)], strict=True):
        row, expected = layout.prompt_row(prompt), layout.row(document)
        assert row["position"].tolist() == expected["position"].tolist()


def test_a_prompt_keeps_the_layouts_with_the_shape_of_its_image():
    layout = make_layout()
    known = known_layouts.KnownLayouts((("3:2", 8), ("1:1", 8), ("3:2", 16)), (3, 2, 1), 6)
    drawn = known_layouts.fit(Document((make_image("3:2"), Gap("document"))), layout, known)
    np.testing.assert_allclose(drawn.probs, [0.75, 0.25])


def test_files_of_earlier_versions_have_squares():
    text = '{"documents": 3, "layouts": [{"runs": [8, 0, 16], "documents": 3}]}'
    known = known_layouts.KnownLayouts.from_json(text)
    assert known.layouts == ((8, image_shapes.SQUARE, 16),)


def test_layouts_are_counted_if_a_ratio_is_not_a_reduced_fraction():
    layout = make_layout(ratios=("1:1", "6:4"))
    example = Document((Gap("image", aspect_ratio="3:2"),))
    known = known_layouts.count([example], layout)
    assert (known.layouts, known.counts) == ((("3:2",),), (1,))
