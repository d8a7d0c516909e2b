"""Tests of colors: profiles, bit depths and modes give the right 8-bit sRGB pixels."""

import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from oneflow_jax import errors
from oneflow_jax.data import image_io, prompt
from tests.data import icc_profiles

COLOR = (200, 100, 50)


def encode(image, image_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return PIL.Image.open(io.BytesIO(file.getvalue()))


def first_pixel(image):
    return image_io.to_size(image, 4)[0, 0].astype(int)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("primaries", "gamma"),
    [
        (icc_profiles.DISPLAY_P3, 2.2),
        (icc_profiles.ADOBE_RGB, 2.2),
        (icc_profiles.SRGB, 1.0),  # linear light
        (((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), 1.8),  # ProPhoto RGB
    ],
)
def test_rgb_profiles_become_srgb(image_format, primaries, gamma):
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    image = encode(
        PIL.Image.new("RGB", (4, 4), COLOR), image_format,
        icc_profile=icc_profiles.rgb_profile(primaries, gamma), **lossless.get(image_format, {}),
    )  # fmt: skip
    wanted = icc_profiles.expected_srgb(COLOR, primaries, gamma)
    assert abs(wanted - COLOR).max() > 3
    assert abs(first_pixel(image) - wanted).max() <= (4 if image_format == "JPEG" else 2)


def test_an_srgb_profile_changes_no_pixel():
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    image = encode(PIL.Image.fromarray(noise), icc_profile=profile)
    np.testing.assert_array_equal(image_io.to_size(image, 4), noise)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_grey_profiles_become_srgb(mode):
    profile = icc_profiles.grey_profile(1.0)
    image = PIL.Image.new("L", (4, 4), 128)
    if mode == "I;16":
        image = PIL.Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    elif mode != "L":
        image = image.convert(mode, dither=PIL.Image.Dither.NONE)
    wanted = icc_profiles.encode_srgb(np.array(1.0 if mode == "1" else 128 / 255))
    assert abs(first_pixel(encode(image, icc_profile=profile)) - wanted).max() <= 1


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_cmyk_profiles_become_srgb(image_format):
    profile = icc_profiles.cmyk_profile()
    for ink, wanted in (((255, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((0, 255, 255, 0), 255)):
        image = encode(PIL.Image.new("CMYK", (8, 8), ink), image_format, icc_profile=profile)
        assert abs(first_pixel(image) - wanted).max() <= 6


def test_grey_and_palette_images_with_an_rgb_profile():
    profile = icc_profiles.rgb_profile(icc_profiles.SRGB, 1.0)
    wanted = icc_profiles.encode_srgb(np.array(128 / 255))
    for mode in ("L", "P", "LA"):
        image = encode(PIL.Image.new("L", (4, 4), 128).convert(mode), icc_profile=profile)
        assert abs(first_pixel(image) - wanted).max() <= 1


def test_transparency_is_kept_through_a_profile():
    image = PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (*COLOR, 255))
    profile = icc_profiles.rgb_profile(icc_profiles.ADOBE_RGB, 2.2)
    pixels = image_io.to_size(encode(image, icc_profile=profile), 4).astype(int)
    wanted = icc_profiles.expected_srgb(COLOR, icc_profiles.ADOBE_RGB, 2.2)
    assert abs(pixels[0, 0] - wanted).max() <= 2
    assert (pixels[3, 3] == 255).all()


@pytest.mark.parametrize(
    "profile", [b"damaged", icc_profiles.cmyk_profile(), icc_profiles.grey_profile(1.0)]
)
def test_unsuitable_profile_is_reported(profile, tmp_path, caplog):
    path = tmp_path / "odd.png"
    PIL.Image.new("RGB", (4, 4), COLOR).save(path, icc_profile=profile)
    np.testing.assert_array_equal(image_io.load(path, 4)[0, 0], COLOR)
    assert "odd.png" in caplog.text
    assert "color profile" in caplog.text


def test_lab_images_become_srgb():
    srgb, lab = PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.createProfile("LAB")
    image = PIL.Image.new("RGB", (4, 4), COLOR)
    image = PIL.ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    assert abs(first_pixel(encode(image, "TIFF")) - COLOR).max() <= 2


RAMP = np.linspace(0, 1, 16).reshape(4, 4)
EXPECTED_RAMP = np.round(255 * RAMP)


def make_tiff(values, bits, sample_format=1, tags=()):
    """Return a grey TIFF image with additional (tag, type, value) entries."""
    kinds = {3: ("H", 2), 4: ("I", 4), 11: ("f", 4), 12: ("d", 8)}
    data = values if isinstance(values, bytes) else values.tobytes()
    entries = [(256, 3, 4), (257, 3, 4), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    entries += [(277, 3, 1), (278, 3, 4), (279, 4, len(data)), (339, 3, sample_format)]
    entries = sorted({entry[0]: entry for entry in [*entries, *tags]}.values())
    body = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        letter, size = kinds[kind]
        body += struct.pack("<HHI", tag, kind, 1) + struct.pack(f"<{letter}", value).ljust(4, b"\0")
        assert size <= 4
    whole = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + body + bytes(4)
    return PIL.Image.open(io.BytesIO(whole))


def pack_12_bits(values):
    flat = values.ravel()
    text = "".join(f"{value:012b}" for value in flat)
    return int(text, 2).to_bytes(len(text) // 8, "big")


FULL = (RAMP * 65535).astype(np.uint16)
SCALED_IMAGES = {
    "float TIFF from 0 to 1": lambda: encode(PIL.Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "float TIFF with a stated range": lambda: make_tiff(
        (RAMP * 3000 - 1000).astype(np.float32), 32, 3, [(340, 11, -1000), (341, 11, 2000)]
    ),
    "32-bit TIFF with a stated range": lambda: make_tiff(
        (RAMP * 100_000).astype(np.int32), 32, 2, [(340, 4, 0), (341, 4, 100_000)]
    ),
    "12-bit TIFF": lambda: make_tiff(pack_12_bits((RAMP * 4095).astype(int)), 12),
    "16-bit TIFF": lambda: make_tiff(FULL, 16),
    "16-bit TIFF in which 0 is white": lambda: make_tiff(65535 - FULL, 16, tags=[(262, 3, 0)]),
    "16-bit PNG": lambda: encode(PIL.Image.fromarray(FULL)),
    "10-bit PGM": lambda: PIL.Image.open(
        io.BytesIO(b"P5 4 4 1023 " + (RAMP * 1023).astype(">u2").tobytes())
    ),
    "PFM": lambda: PIL.Image.open(
        io.BytesIO(b"Pf\n4 4\n-1.0\n" + RAMP[::-1].astype("<f4").tobytes())
    ),
    "float array": lambda: PIL.Image.fromarray(RAMP.astype(np.float32)),
}


@pytest.mark.parametrize("name", SCALED_IMAGES)
def test_deep_images_are_scaled_by_their_range(name):
    pixels = image_io.to_size(SCALED_IMAGES[name](), 4)[..., 0].astype(float)
    assert abs(pixels - EXPECTED_RAMP).max() <= 1


REFUSED_IMAGES = {
    "floats from 0 to 255": lambda: PIL.Image.fromarray((RAMP * 255).astype(np.float32)),
    "floats above 1 in a TIFF": lambda: encode(
        PIL.Image.fromarray((RAMP * 1.5).astype(np.float32)), "TIFF"
    ),
    "NaN": lambda: PIL.Image.fromarray(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)),
    "infinite": lambda: PIL.Image.fromarray(np.where(RAMP > 0.5, np.inf, RAMP).astype(np.float32)),
    "32-bit integers": lambda: PIL.Image.fromarray((RAMP * 255).astype(np.int32)),
    "32-bit TIFF": lambda: encode(PIL.Image.fromarray((RAMP * 255).astype(np.int32)), "TIFF"),
    "signed 16-bit TIFF": lambda: make_tiff((RAMP * 30_000).astype(np.int16), 16, 2),
}


@pytest.mark.parametrize("name", REFUSED_IMAGES)
def test_deep_images_without_a_range_are_refused(name):
    with pytest.raises(errors.UserError, match=r"(range of|which) values.*8 bits"):
        prompt.parse([REFUSED_IMAGES[name](), "<text>"], 4)


def test_orientation_is_applied_at_16_bits():
    image = PIL.Image.fromarray(np.array([[0, 65535]], np.uint16))
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = image_io.to_size(encode(image, exif=exif), 2)
    assert pixels[0, 0, 0] > pixels[0, 1, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, bool])
def test_other_arrays_are_refused_with_advice(dtype):
    with pytest.raises(errors.UserError, match=r"uint8 array \[height width 3\].*range 0 to 255"):
        prompt.parse([np.ones((4, 4, 3), dtype), "<text>"], 4)
