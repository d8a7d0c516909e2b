import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from oneflow_jax.data.custom import image_decode
from oneflow_jax.data.custom.errors import DataError
from tests.data import icc_profiles
from tests.data.custom import examples


def decode(data, name="a.png", pixels=4, max_megapixels=1.0):
    return image_decode.decode_image(data, name, pixels, max_megapixels)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width, height):
    """Return a PNG whose header claims the given size."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", size) + png_chunk(b"IDAT", zlib.compress(b"\0"))
    )


def test_aspect_ratio_is_kept_on_white():
    pixels, repairs = decode(examples.png("red", (4, 2)))
    assert (pixels[1:3] == (255, 0, 0)).all()
    assert (pixels[[0, 3]] == 255).all()
    assert not repairs


CROP_SIZES = ((8, 8), (6, 10), (10, 6))
"""Sizes, height and width, of the aspect ratios 1:1, 3:2 and 2:3."""


def paint_quarters(width, height):
    """Return an image that is red at the left, blue at the right, and lighter in its lower half."""
    image = Image.new("RGB", (width, height), (200, 0, 0))
    image.paste((0, 0, 200), (width // 2, 0, width, height))
    image.paste((255, 100, 100), (0, height // 2, width // 2, height))
    image.paste((100, 100, 255), (width // 2, height // 2, width, height))
    return image


@pytest.mark.parametrize(
    ("size", "shape", "repairs"),
    [
        ((300, 200), (6, 10, 3), set()),
        ((200, 300), (10, 6, 3), set()),
        ((210, 200), (8, 8, 3), set()),
        ((400, 100), (6, 10, 3), {"cropped"}),
        ((4, 900), (10, 6, 3), {"cropped"}),
    ],
)
@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_images_are_cropped_to_the_nearest_shape(size, shape, repairs, image_format):
    data = encode_image(paint_quarters(*size), image_format)
    name = f"a.{image_format.lower()}"
    pixels, found = image_decode.decode_image(data, name, 8, 1.0, CROP_SIZES)
    assert pixels.shape == shape
    assert found == repairs
    # The center of the image stays at the center, and no margin is white.
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    expected = [(200, 0, 0), (0, 0, 200), (255, 100, 100), (100, 100, 255)]
    assert abs(corners - expected).max() < 40


def test_rotation_in_exif_data_decides_the_shape():
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: the stored image is shown turned to the right.
    data = encode_image(paint_quarters(300, 200), "JPEG", exif=exif)
    pixels, repairs = image_decode.decode_image(data, "a.jpg", 8, 1.0, CROP_SIZES)
    assert pixels.shape == (10, 6, 3)
    assert not repairs
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    expected = [(255, 100, 100), (200, 0, 0), (100, 100, 255), (0, 0, 200)]
    assert abs(corners - expected).max() < 40


def encode_image(image, image_format, **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def test_unusual_images_are_repaired_and_counted():
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    pixels, repairs = decode(encode_image(red, "GIF", save_all=True, append_images=[blue]), "a.gif")
    assert (pixels == (255, 0, 0)).all()
    assert repairs == {"first frame"}
    pixels, repairs = decode(
        encode_image(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "JPEG"), "a.jpg"
    )
    assert (pixels < 10).all()
    assert repairs == {"CMYK"}
    pixels, repairs = decode(encode_image(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG"))
    assert (pixels == 255).all()
    assert repairs == {"transparency"}
    pixels, repairs = decode(
        encode_image(Image.fromarray(np.full((4, 4), 32768, np.uint16)), "PNG")
    )
    assert (abs(pixels.astype(int) - 127) < 2).all()
    assert repairs == {"16 bits"}
    assert decode(examples.png(image_format="JPEG"), "a.png")[1] == {"wrong extension"}
    assert decode(examples.png(image_format="JPEG"), "a")[1] == set()


def test_colors_are_converted_to_srgb_and_counted():
    red = Image.new("RGB", (4, 4), (200, 100, 50))
    profile = icc_profiles.rgb_profile(icc_profiles.DISPLAY_P3, 2.2)
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        data = encode_image(red, image_format, quality=100, icc_profile=profile)
        pixels, repairs = decode(data, f"a.{image_format.lower()}")
        wanted = icc_profiles.expected_srgb((200, 100, 50), icc_profiles.DISPLAY_P3, 2.2)
        assert abs(pixels[0, 0].astype(int) - wanted).max() <= 6
        assert repairs == {"color profile"}
    pixels, repairs = decode(encode_image(red, "PNG", icc_profile=b"broken"))
    assert (pixels[0, 0] == (200, 100, 50)).all()
    assert repairs == {"unusable color profile"}
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode(encode_image(red, "PNG", icc_profile=srgb))[1] == set()


def test_floats_are_scaled_or_refused():
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    pixels, repairs = decode(encode_image(Image.fromarray(ramp), "TIFF"), "a.tif")
    assert abs(pixels[..., 0] - 255 * ramp).max() <= 1
    assert repairs == {"16 bits"}
    for values in (255 * ramp, -ramp, (255 * ramp).astype(np.int32)):
        with pytest.raises(DataError, match="no range of values"):
            decode(encode_image(Image.fromarray(values), "TIFF"), "a.tif")


def encode_noise(image_format):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    return encode_image(Image.fromarray(pixels), image_format)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty picture"),
        (b"no picture", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unread format"),
        (examples.png()[:50], "damaged picture"),
        (encode_noise("JPEG")[:-3000], "damaged picture"),
        (encode_noise("GIF")[:-3000], "damaged picture"),
        (encode_noise("WEBP")[:-3000], "damaged picture"),
        (png_header(1001, 1000), "too large"),
        (png_header(60_000, 60_000), "too large"),
        (png_header(0, 5), "not a picture"),
        (b"P6 0 5 255\n", "not a picture"),
    ],
)
def test_undecodable_content_is_rejected(data, reason):
    with pytest.raises(DataError) as fault:
        decode(data)
    assert fault.value.reason == reason


def test_a_program_is_never_run_for_a_format():
    """Check that no allowed format makes Pillow run a program; EPS would run Ghostscript."""
    assert set(image_decode.FORMATS).isdisjoint(
        {"EPS", "WMF", "PSD", "FITS", "HDF5", "GRIB", "BUFR"}
    )


@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (1, 1)])
def test_any_aspect_ratio_is_accepted(size):
    assert decode(examples.png("red", size))[0].shape == (4, 4, 3)


def test_photographs_are_decoded_at_reduced_size():
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    large = Image.fromarray(noise).resize((400, 400), Image.Resampling.BICUBIC)
    whole = np.array(large.resize((8, 8), Image.Resampling.LANCZOS)).astype(int)
    actual = decode(encode_image(large, "JPEG", quality=95), "a.jpg", pixels=8)[0].astype(int)
    assert abs(actual - whole).mean() < 6
