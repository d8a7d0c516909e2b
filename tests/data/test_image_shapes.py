"""Tests of the shapes of images: their sizes, and which images get which shape."""

import math

import pytest

from oneflow_jax.data import image_shapes
from oneflow_jax.data.image_shapes import ImageShapes
from oneflow_jax.errors import UserError

RATIOS = ("1:1", "3:2", "2:3", "16:9", "9:16")


def test_the_square_alone_crops_nothing():
    assert ImageShapes(32, 8).crop_sizes == ()
    assert ImageShapes(32, 8).grids == {"1:1": (4, 4)}


@pytest.mark.parametrize(("pixels", "slot_pixels"), [(64, 8), (256, 16), (512, 16)])
def test_shapes_have_at_most_the_slots_of_the_square_and_about_their_ratio(pixels, slot_pixels):
    shapes = ImageShapes(pixels, slot_pixels, RATIOS)
    most = (pixels // slot_pixels) ** 2
    for ratio, (height, width) in zip(RATIOS, shapes.crop_sizes, strict=True):
        assert height % slot_pixels == width % slot_pixels == 0
        slots = height * width // slot_pixels**2
        assert 0.8 * most < slots <= most
        wanted = image_shapes.parse_ratio(ratio)
        assert abs(math.log(width / height * wanted[1] / wanted[0])) < 0.1


def test_a_portrait_is_a_turned_landscape():
    for landscape, portrait in (("3:2", "2:3"), ("16:9", "9:16"), ("4:1", "1:4")):
        wide = ImageShapes(256, 16, ("1:1", landscape)).grids[landscape]
        high = ImageShapes(256, 16, ("1:1", portrait)).grids[portrait]
        assert wide == high[::-1]


@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        ((3000, 2000), "3:2"),
        ((2000, 3000), "2:3"),
        ((1024, 1000), "1:1"),
        ((1920, 1080), "16:9"),
        ((10_000, 10), "16:9"),
        ((1, 5000), "9:16"),
    ],
)
def test_an_image_gets_the_shape_of_which_the_most_is_kept(size, ratio):
    shapes = ImageShapes(512, 16, RATIOS)
    height, width = image_shapes.choose_size(*size, shapes.crop_sizes)
    assert shapes.find_ratio(width, height) == ratio


def test_kept_fraction():
    assert image_shapes.compute_kept_fraction((3, 2), (2, 3)) == 1  # a size is height and width
    assert image_shapes.compute_kept_fraction((4, 1), (1, 1)) == 0.25
    assert image_shapes.compute_kept_fraction((1, 4), (1, 1)) == 0.25


def test_a_shape_is_found_by_its_ratio_and_by_that_of_its_slots():
    shapes = ImageShapes(32, 8, ("1:1", "3:2", "2:3"))
    assert shapes.grids["3:2"] == (3, 5)
    assert shapes.find_ratio(6, 4) == shapes.find_ratio(40, 24) == "3:2"
    assert shapes.find_ratio(2, 3) == shapes.find_ratio(24, 40) == "2:3"
    assert shapes.find_ratio(7, 7) == "1:1"
    with pytest.raises(UserError, match=r"<image 4:3>.*aspect ratio.*data\.aspect_ratios"):
        shapes.find_ratio(4, 3)


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        (("3:2",), "'1:1' is missing"),
        ((), "'1:1' is missing"),
        (("1:1", "3:2", "3:2"), "twice"),
        (("1:1", "3:2", "6:4"), "'3:2' and '6:4' .*same shape"),
        (
            ("1:1", "3:2", "16:9"),
            r"'3:2' and '16:9' .*same shape, 5 x 3 slots of 8 pixels\. Leave out",
        ),
        (("1:1", "10:9"), "same shape, 4 x 4"),
        (("1:1", "3x2"), "not WIDTH:HEIGHT"),
        (("1:1", "0:2"), "not WIDTH:HEIGHT"),
        (("1:1", "-3:2"), "not WIDTH:HEIGHT"),
        (("1:1", "10001:1"), "10000"),
    ],
)
def test_unusable_ratios_are_refused(ratios, message):
    with pytest.raises(UserError, match=message):
        ImageShapes(32, 8, ratios)
