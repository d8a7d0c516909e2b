import numpy as np
import PIL.Image
import pytest

from oneflow_jax import errors
from oneflow_jax.data import image_io


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_mode_gives_rgb_of_the_right_color(tmp_path, mode):
    path = tmp_path / ("red.tif" if mode == "CMYK" else "red.png")
    PIL.Image.new("RGB", (10, 10), (255, 255, 255)).convert(mode).save(path)
    loaded = image_io.load(path, 6)
    assert loaded.shape == (6, 6, 3)
    assert loaded.dtype == np.uint8
    assert loaded.min() >= 254


def test_transparency_becomes_white(tmp_path):
    picture = PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    picture.putpixel((0, 0), (200, 0, 0, 255))
    picture.save(tmp_path / "a.png")
    loaded = image_io.load(tmp_path / "a.png", 4)
    np.testing.assert_array_equal(loaded[0, 0], [200, 0, 0])
    np.testing.assert_array_equal(loaded[3, 3], [255, 255, 255])


def test_transparent_palette_becomes_white(tmp_path):
    picture = PIL.Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "p.png", transparency=1)
    loaded = image_io.load(tmp_path / "p.png", 4)
    np.testing.assert_array_equal(loaded[0, 0], [0, 0, 0])
    np.testing.assert_array_equal(loaded[2, 2], [255, 255, 255])


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    PIL.Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    assert np.all(image_io.load(tmp_path / "deep.png", 4) == 100)


def test_a_wide_image_is_padded_with_white_above_and_below(tmp_path):
    PIL.Image.new("RGB", (8, 4), (0, 0, 255)).save(tmp_path / "wide.png")
    loaded = image_io.load(tmp_path / "wide.png", 8)
    np.testing.assert_array_equal(loaded[0], np.full((8, 3), 255))
    np.testing.assert_array_equal(loaded[4], np.tile([0, 0, 255], (8, 1)))


def test_image_of_the_target_size_is_unchanged(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    (tmp_path / "n.png").write_bytes(image_io.to_png(noise))
    np.testing.assert_array_equal(image_io.load(tmp_path / "n.png", 5), noise)


def test_png_round_trip():
    noise = np.random.default_rng(0).integers(0, 256, (3, 7, 3), np.uint8)
    np.testing.assert_array_equal(image_io.from_png(image_io.to_png(noise)), noise)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=r"broken\.png"):
        image_io.load(path, 8)


def test_a_truncated_file_is_named(tmp_path):
    whole = image_io.to_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.UserError, match=r"half\.png"):
        image_io.load(tmp_path / "half.png", 8)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(errors.UserError, match=r"nowhere\.png.*no such file"):
        image_io.load(tmp_path / "nowhere.png", 8)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "a folder"),
        (".", "a folder"),
        ("https://host/cat.png", "'https://host/cat.png': an ad"),
    ],
)
def test_what_is_no_file_is_described(path, reason):
    with pytest.raises(errors.UserError, match=reason):
        image_io.load(path, 8)
