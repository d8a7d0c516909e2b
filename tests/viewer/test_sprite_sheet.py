import base64
import io

import numpy as np
import pytest
from PIL import Image

from oneflow_jax.viewer import sprite_sheet

LARGE_BUDGET = 10**9


def make_noise(seed, height=8, width=6):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def read_tile(sheets, position):
    """Return the pixels of a tile, decoded from its data URI."""
    sheet = sheets[position.sheet]
    image = Image.open(io.BytesIO(base64.b64decode(sheet["uri"].split(",")[1]))).convert("RGB")
    top = position.row * sheet["height"]
    return np.asarray(image)[top : top + sheet["height"], : sheet["width"]]


def test_tiles_are_lossless_within_the_budget():
    tiles = sprite_sheet.SpritePacker()
    pictures = [make_noise(i) for i in range(5)] + [make_noise(9, 4, 12)]
    places = [tiles.add(pixels, i % 2, lossless=i == 0) for i, pixels in enumerate(pictures)]
    sheets, remark = tiles.encode(LARGE_BUDGET)
    assert remark == ""
    for pixels, place in zip(pictures, places, strict=True):
        np.testing.assert_array_equal(read_tile(sheets, place), pixels)


def test_the_same_tile_is_stored_once():
    tiles = sprite_sheet.SpritePacker()
    assert tiles.add(make_noise(0), 0, lossless=False) == tiles.add(
        make_noise(0), 1, lossless=False
    )
    (sheet,), _ = tiles.encode(LARGE_BUDGET)
    assert Image.open(io.BytesIO(base64.b64decode(sheet["uri"].split(",")[1]))).size == (6, 8)


@pytest.mark.parametrize("share", [0.8, 0.1])
def test_over_budget_only_lossless_tiles_stay_exact_with_a_note(share):
    tiles = sprite_sheet.SpritePacker()
    exact = tiles.add(make_noise(0, 32, 32), 0, lossless=True)
    between = [tiles.add(make_noise(i, 32, 32), 0, lossless=False) for i in range(1, 20)]
    full = sum(len(sheet["uri"]) for sheet in tiles.encode(LARGE_BUDGET)[0])
    sheets, remark = tiles.encode(round(full * share))
    assert sum(len(sheet["uri"]) for sheet in sheets) < full
    assert "stored" in remark
    np.testing.assert_array_equal(read_tile(sheets, exact), make_noise(0, 32, 32))
    assert (read_tile(sheets, between[0]) != make_noise(1, 32, 32)).any()


def test_tiles_with_any_difference_are_stored_separately():
    last = make_noise(0)
    last[-1, -1, -1] ^= 1
    tiles = sprite_sheet.SpritePacker()
    images = (make_noise(0), last, make_noise(0).reshape(6, 8, 3))
    places = [tiles.add(pixels, 0, lossless=True) for pixels in images]
    assert len(set(places)) == 3


def test_sheets_stay_small_enough_for_browsers():
    tiles = sprite_sheet.SpritePacker()
    places = [tiles.add(make_noise(i, 3000, 1), 0, lossless=True) for i in range(5)]
    assert [(place.sheet, place.row) for place in places] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 0),
    ]
