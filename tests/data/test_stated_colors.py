"""Tests of the colors that PNG, AVIF and JPEG files state without a profile."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from oneflow_jax import errors
from oneflow_jax.data import avif_colors, image_io, prompt
from oneflow_jax.data.custom import image_decode
from oneflow_jax.data.custom.errors import DataError
from tests.data import icc_profiles

COLOR = (200, 100, 50)
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
P3_PROFILE = icc_profiles.rgb_profile(icc_profiles.DISPLAY_P3, 2.2)
SRGB_PROFILE = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def make_png(*chunks, image=None, **options):
    """Return a PNG file with additional chunks (name, content) before its pixels."""
    file = io.BytesIO()
    (image or PIL.Image.new("RGB", (4, 4), COLOR)).save(file, "PNG", **options)
    data, more = file.getvalue(), b""
    for name, content in chunks:
        more += struct.pack(">I", len(content)) + name + content
        more += struct.pack(">I", zlib.crc32(name + content))
    return data[:33] + more + data[33:]


def gamma_chunk(value):
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def primaries_chunk(primaries, white=icc_profiles.XY_WHITE):
    points = [value for point in (white, *primaries) for value in point]
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in points))


def cicp_chunk(primaries, transfer, matrix=0, full_range=1):
    return b"cICP", bytes([primaries, transfer, matrix, full_range])


def decode(data, name="a.png"):
    """Return the first pixel and the repairs of an image of custom data."""
    pixels, repairs = image_decode.decode_image(data, name, 4, 1.0)
    return pixels[0, 0].astype(int), repairs


def decode_srgb(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def decode_bt709(values):
    return np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))


SRGB_CHUNK = (b"sRGB", b"\0")
CONVERTED = {
    "linear light": ([gamma_chunk(1.0)], icc_profiles.SRGB, 1.0),
    "gamma 1.8": ([gamma_chunk(1 / 1.8)], icc_profiles.SRGB, 1.8),
    "primaries": ([primaries_chunk(icc_profiles.DISPLAY_P3)], icc_profiles.DISPLAY_P3, decode_srgb),
    "gamma and primaries": (
        [gamma_chunk(1 / 1.8), primaries_chunk(icc_profiles.ADOBE_RGB)],
        icc_profiles.ADOBE_RGB,
        1.8,
    ),
    "Display P3": ([cicp_chunk(12, 13)], icc_profiles.DISPLAY_P3, decode_srgb),
    "BT.709": ([cicp_chunk(1, 1)], icc_profiles.SRGB, decode_bt709),
    "linear BT.709": ([cicp_chunk(1, 8)], icc_profiles.SRGB, 1.0),
    "BT.2020": ([cicp_chunk(9, 14)], BT2020, decode_bt709),
    "cICP before sRGB": ([cicp_chunk(12, 13), SRGB_CHUNK], icc_profiles.DISPLAY_P3, decode_srgb),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_stated_colors_become_srgb(name):
    chunks, primaries, gamma = CONVERTED[name]
    wanted = icc_profiles.expected_srgb(COLOR, primaries, gamma)
    assert abs(wanted - COLOR).max() > 3
    pixel, repairs = decode(make_png(*chunks))
    assert abs(pixel - wanted).max() <= 1
    assert repairs == {"color profile"}


SAME = {
    "nothing": [],
    "sRGB": [SRGB_CHUNK],
    "sRGB before gAMA": [SRGB_CHUNK, gamma_chunk(1.0)],
    "the gamma of sRGB": [gamma_chunk(0.45455)],
    "gamma and primaries of sRGB": [gamma_chunk(0.45455), primaries_chunk(icc_profiles.SRGB)],
    "cICP of sRGB": [cicp_chunk(1, 13)],
    "cICP of sRGB before gAMA": [cicp_chunk(1, 13), gamma_chunk(1.0)],
}


@pytest.mark.parametrize("name", SAME)
def test_srgb_stays_as_it_is(name):
    pixel, repairs = decode(make_png(*SAME[name]))
    assert tuple(pixel) == COLOR
    assert not repairs


def test_cicp_is_used_instead_of_a_profile_and_a_profile_instead_of_gamma():
    pixel, _ = decode(make_png(cicp_chunk(1, 13), icc_profile=P3_PROFILE))
    assert tuple(pixel) == COLOR
    pixel, _ = decode(make_png(gamma_chunk(1.0), icc_profile=SRGB_PROFILE))
    assert tuple(pixel) == COLOR


def test_gray_palette_and_deep_images_are_converted():
    for mode in ("L", "LA", "P", "RGBA"):
        image = PIL.Image.new("L", (4, 4), 128).convert(mode)
        assert abs(decode(make_png(gamma_chunk(1.0), image=image))[0] - 188).max() <= 1
    deep = PIL.Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    assert abs(decode(make_png(gamma_chunk(1.0), image=deep))[0] - 188).max() <= 1


UNKNOWN = {
    "PQ": ([cicp_chunk(9, 16)], "transfer function 16"),
    "HLG": ([cicp_chunk(9, 18)], "transfer function 18"),
    "XYZ": ([cicp_chunk(10, 13)], "primaries 10"),
    "YCbCr": ([cicp_chunk(1, 13, matrix=1)], "matrix 1"),
    "a narrow range": ([cicp_chunk(1, 13, full_range=0)], "full-range flag 0"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_colors_are_refused_by_name(name, tmp_path):
    chunks, problem = UNKNOWN[name]
    data = make_png(*chunks)
    with pytest.raises(DataError, match=rf"unknown colors.*{problem}"):
        decode(data)
    (tmp_path / "hdr.png").write_bytes(data)
    with pytest.raises(errors.UserError, match=rf"hdr\.png.*{problem}.*[Cc]onvert"):
        image_io.load(tmp_path / "hdr.png", 4)
    with pytest.raises(errors.UserError, match=rf"prompt: .*{problem}.*[Cc]onvert"):
        prompt.parse([PIL.Image.open(io.BytesIO(data)), "<text>"], 4)


@pytest.mark.parametrize(
    "chunk",
    [
        gamma_chunk(0.0),
        (b"cHRM", bytes(32)),
        primaries_chunk([(0.3, 0.3)] * 3),
        primaries_chunk(icc_profiles.SRGB, white=(0.3, 0.0)),
    ],
)
def test_impossible_values_are_counted(chunk):
    pixel, repairs = decode(make_png(chunk))
    assert tuple(pixel) == COLOR
    assert repairs == {"unusable color profile"}


def test_truncated_chunk_is_counted():
    """Pillow 12 reads the image without the chunk; Pillow 13 refuses the whole image."""
    data = make_png((b"cHRM", b"\0\0\0\1"))
    if int(PIL.__version__.split(".")[0]) < 13:
        assert decode(data)[1] == {"unusable color profile"}
        return
    with pytest.raises(DataError, match="Truncated cHRM chunk"):
        decode(data)


def test_images_in_prompts_are_converted():
    opened = PIL.Image.open(io.BytesIO(make_png(cicp_chunk(12, 13))))
    wanted = icc_profiles.expected_srgb(COLOR, icc_profiles.DISPLAY_P3, decode_srgb)
    assert abs(image_io.to_size(opened, 4)[0, 0].astype(int) - wanted).max() <= 1


def make_avif(primaries, transfer, **options):
    """Return an AVIF file whose box `colr` has these code points of H.273."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (16, 16), COLOR).save(file, "AVIF", quality=100, **options)
    data = file.getvalue()
    start = data.index(b"colrnclx") + 8
    return data[:start] + struct.pack(">HH", primaries, transfer) + data[start + 4 :]


AVIF = {
    "Display P3": (12, 13, icc_profiles.DISPLAY_P3, decode_srgb),
    "BT.2020": (9, 13, BT2020, decode_srgb),
    "BT.2020 of a video": (9, 14, BT2020, decode_srgb),
    "linear light": (1, 8, icc_profiles.SRGB, 1.0),
    "gamma 2.2 of Display P3": (12, 4, icc_profiles.DISPLAY_P3, 2.2),
    "sRGB": (1, 13, icc_profiles.SRGB, decode_srgb),
    "unspecified": (2, 2, icc_profiles.SRGB, decode_srgb),
    "BT.709 of a video": (1, 1, icc_profiles.SRGB, decode_srgb),
}


@pytest.mark.parametrize("name", AVIF)
def test_code_points_of_avif_become_srgb(name, tmp_path):
    primaries, transfer, points, curve = AVIF[name]
    wanted = icc_profiles.expected_srgb(COLOR, points, curve)
    data = make_avif(primaries, transfer)
    pixel, repairs = decode(data, "a.avif")
    assert abs(pixel - wanted).max() <= 3
    assert repairs == (set() if abs(wanted - COLOR).max() <= 1 else {"color profile"})
    (tmp_path / "a.avif").write_bytes(data)
    assert abs(image_io.load(tmp_path / "a.avif", 4)[0, 0].astype(int) - wanted).max() <= 3


@pytest.mark.parametrize("transfer", [16, 18])
def test_avif_of_high_dynamic_range_is_refused(transfer):
    with pytest.raises(DataError, match=rf"unknown colors.*transfer function {transfer} "):
        decode(make_avif(9, transfer), "a.avif")


def test_an_avif_profile_is_used_instead_of_code_points():
    data = make_avif(9, 16, icc_profile=P3_PROFILE)
    wanted = icc_profiles.expected_srgb(COLOR, icc_profiles.DISPLAY_P3, 2.2)
    assert abs(decode(data, "a.avif")[0] - wanted).max() <= 3


@pytest.mark.parametrize("data", [b"", bytes(64), make_avif(12, 13)[:240], b"\xff" * 64])
def test_malformed_boxes_state_nothing(data):
    assert avif_colors.read_code_points(io.BytesIO(data)) is None


def make_camera_jpeg(index, **options):
    """Return a JPEG file with an interoperability index, as cameras write it."""
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: index}
    file = io.BytesIO()
    PIL.Image.new("RGB", (16, 16), COLOR).save(file, "JPEG", quality=100, exif=exif, **options)
    return file.getvalue()


def test_camera_images_in_adobe_rgb_become_srgb():
    wanted = icc_profiles.expected_srgb(COLOR, icc_profiles.ADOBE_RGB, 563 / 256)
    pixel, repairs = decode(make_camera_jpeg("R03"), "a.jpg")
    assert abs(wanted - COLOR).max() > 10
    assert abs(pixel - wanted).max() <= 3
    assert repairs == {"color profile"}
    pixel, repairs = decode(make_camera_jpeg("R98"), "a.jpg")
    assert abs(pixel - COLOR).max() <= 2
    assert not repairs
    pixel, _ = decode(make_camera_jpeg("R03", icc_profile=SRGB_PROFILE), "a.jpg")
    assert abs(pixel - COLOR).max() <= 2


@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_malformed_exif_data_is_ignored(exif):
    file = io.BytesIO()
    PIL.Image.new("RGB", (16, 16), COLOR).save(file, "JPEG", quality=100, exif=exif)
    assert abs(decode(file.getvalue(), "a.jpg")[0] - COLOR).max() <= 2
