import numpy as np
import pytest

from oneflow_jax.codecs import patches
from oneflow_jax.errors import UserError


def coordinate_values(height, width, channels):
    """Return values that encode their row, column and channel."""
    row, column, channel = np.indices((height, width, channels))
    return 100 * row + 10 * column + channel


def test_patches_and_their_pixels_are_in_reading_order():
    rows = patches.to_patches(coordinate_values(4, 6, 2), 2)
    assert rows.shape == (6, 8)
    np.testing.assert_array_equal(rows[0], [0, 1, 10, 11, 100, 101, 110, 111])
    # The second patch is to the right of the first patch, and the fourth is below the first.
    np.testing.assert_array_equal(rows[1], rows[0] + 20)
    np.testing.assert_array_equal(rows[3], rows[0] + 200)


@pytest.mark.parametrize(("height", "width", "side"), [(4, 6, 2), (6, 4, 2), (3, 6, 3), (5, 2, 1)])
def test_from_patches_inverts_to_patches(height, width, side):
    values = coordinate_values(height, width, 3)
    rows, grid = patches.to_patches(values, side), (height // side, width // side)
    np.testing.assert_array_equal(patches.from_patches(rows, grid, side), values)
    many = np.stack([rows, rows + 1, rows + 2] * 2).reshape(2, 3, *rows.shape)
    joined = patches.from_patches(many, grid, side)
    assert joined.shape == (2, 3, height, width, 3)
    np.testing.assert_array_equal(joined[1, 2], values + 2)


@pytest.mark.parametrize("colors", [1, 3])
def test_patch_codec_is_lossless(colors):
    codec = patches.PatchCodec(pixels=6, patch_size=2, image_channels=colors, mean=0.3, std=0.7)
    picture = np.random.default_rng(0).integers(0, 256, (6, 6, colors)).astype(np.uint8)
    picture = np.repeat(picture, 3 // colors, axis=-1)
    latents = codec.encode(picture)
    assert latents.shape == (9, codec.channels)
    assert latents.dtype == np.float32
    np.testing.assert_array_equal(codec.decode(latents), picture)
    values = picture[..., :colors].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(codec.from_stored(values), latents, atol=1e-6)
    np.testing.assert_allclose(latents.mean(), (values.mean() - 0.3) / 0.7, atol=1e-5)


def test_invalid_patch_sizes_are_reported():
    settings = {"pixels": 6, "patch_size": 2, "image_channels": 3, "mean": 0.0, "std": 1.0}
    for change, message in (
        ({"patch_size": 4}, r"codec\.patch_size=4 does not divide codec\.pixels=6"),
        ({"patch_size": 0}, r"codec\.patch_size=0"),
        ({"image_channels": 2}, r"codec\.image_channels=2"),
    ):
        with pytest.raises(UserError, match=message):
            patches.PatchCodec(**settings | change)
    with pytest.raises(UserError, match=r"\(5, 6, 3\).*multiples of 2.*codec\.pixels"):
        patches.PatchCodec(**settings).encode(np.zeros((5, 6, 3), np.uint8))
