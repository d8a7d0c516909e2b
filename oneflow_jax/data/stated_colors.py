"""Builds an ICC profile for an image file that states its color space in another way.

The JPEG file of a camera may state Adobe RGB in its Exif data, and an AVIF file may state code
points of ITU-T H.273. Both are ignored if the file has an ICC profile. A PNG file can state its
colors in four ways. If it uses several of them, the first one in this list counts, as the PNG
standard says:

cICP          code points of ITU-T H.273 for primaries and transfer function
iCCP          an ICC profile
sRGB          the image is sRGB
gAMA, cHRM    exponent of the values, and primaries; if one of the two is missing, sRGB's is used
"""

import functools
import struct
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import PIL.Image

from oneflow_jax.data import avif_colors

MAX_GAMMA_ERROR = 0.05
"""A gamma counts as that of sRGB if its product with 2.2 differs from 1 by at most this much, as in
libpng. Programs that write sRGB state the gamma 1 / 2.2, although sRGB's curve is not a power."""

_GAMMA_LIMITS = (0.1, 10.0)
_SIGNATURE_BYTES = 8

Point = tuple[float, float]
Curve = tuple[float, float, float, float, float]
"""Parameters (g, a, b, c, d): a value v has the linear light (a v + b)^g if v >= d, else c v."""

_WHITE: Point = (0.3127, 0.3290)
_SRGB_PRIMARIES: tuple[Point, ...] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_PRIMARIES_BY_CODE: dict[int, tuple[Point, ...]] = {
    1: _SRGB_PRIMARIES,
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""Red, green and blue of BT.709, BT.2020 and Display P3, by code point of H.273."""

_ADOBE_RGB_PRIMARIES: tuple[Point, ...] = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_ADOBE_RGB_CURVE: Curve = (563 / 256, 1, 0, 0, 0)
_EXIF_INTEROPERABILITY, _INDEX, _ADOBE_RGB_INDEX = 0xA005, 1, "R03"
"""Exif directory, tag and value by which cameras mark an image as Adobe RGB."""

_EXIF_ERRORS = (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error)
"""Exceptions that Pillow raises for malformed Exif data, which is frequent."""

_SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE: Curve = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVE_BY_CODE: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 14, 15), _BT709_CURVE),
    4: (2.2, 1, 0, 0, 0),
    5: (2.8, 1, 0, 0, 0),
    8: (1, 1, 0, 0, 0),
    13: _SRGB_CURVE,
}
"""Inverse transfer functions, by code point of H.273.

PQ (16) and HLG (18) are missing, since they are for images of high dynamic range.
"""

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


class UnknownColorsError(ValueError):
    """An image states colors that the program cannot convert to sRGB."""


def find_profile(image: PIL.Image.Image) -> bytes | None:
    """Return the ICC profile of an image, or one equivalent to the colors that its file states.

    Returns:
        A profile; None if the image states no colors or sRGB; b"" if it states impossible values.

    Raises:
        UnknownColorsError: the file has code points that this module does not know.
    """
    read_statements(image)
    if (code_points := image.info.get("cicp")) is not None:
        return _profile_of_code_points(code_points)
    if profile := image.info.get("icc_profile"):
        return profile
    if "adobe rgb" in image.info:
        return _make_profile(_WHITE, _ADOBE_RGB_PRIMARIES, _ADOBE_RGB_CURVE)
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if "srgb" in image.info or gamma is points is None:
        return None
    curve = _SRGB_CURVE if gamma is None else _curve_of_gamma(gamma)
    if points is None:
        points = [value for point in (_WHITE, *_SRGB_PRIMARIES) for value in point]
    if curve is None or len(points) != 8:
        return b""
    pairs = list(zip(points[::2], points[1::2], strict=True))
    return _make_profile(pairs[0], tuple(pairs[1:]), curve)


def read_statements(image: PIL.Image.Image) -> None:
    """Store color information that Pillow ignores in `image.info`: "cicp" and "adobe rgb".

    Call this function before Pillow loads the pixels, since loading them closes the file.
    """
    file = getattr(image, "fp", None)
    if file is None or "cicp" in image.info:
        return
    has_profile = bool(image.info.get("icc_profile"))
    if image.format == "PNG":
        _read_png(image, file)
    elif image.format == "AVIF" and not has_profile:
        code_points = avif_colors.read_code_points(file)
        image.info |= {} if code_points is None else {"cicp": (*code_points, 0, 1)}
    elif image.format in ("JPEG", "MPO") and not has_profile:
        is_adobe_rgb = _find_interoperability_index(image).startswith(_ADOBE_RGB_INDEX)
        image.info |= {"adobe rgb": True} if is_adobe_rgb else {}


def _find_interoperability_index(image: PIL.Image.Image) -> str:
    exif = PIL.Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return str(exif.get_ifd(_EXIF_INTEROPERABILITY).get(_INDEX, ""))
    except _EXIF_ERRORS:
        return ""


def _read_png(image: PIL.Image.Image, file: BinaryIO) -> None:
    position = file.tell()
    file.seek(_SIGNATURE_BYTES)
    while len(header := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", header)
        if name in (b"cICP", b"IDAT"):
            if name == b"cICP":
                image.info["cicp"] = tuple(file.read(min(length, 5)))
            break
        file.seek(length + 4, 1)  # Skip the content and its checksum.
    file.seek(position)


def _profile_of_code_points(code_points: Sequence[int]) -> bytes:
    if len(code_points) != 4:
        return b""
    primaries, transfer, matrix, full_range = code_points
    problems = {
        f"primaries {primaries}": primaries not in _PRIMARIES_BY_CODE,
        f"transfer function {transfer}": transfer not in _CURVE_BY_CODE,
        f"matrix {matrix}": matrix != 0,
        f"full-range flag {full_range}": full_range != 1,
    }
    unknown = [name for name, is_unknown in problems.items() if is_unknown]
    if unknown:
        raise UnknownColorsError(
            f"it states {' and '.join(unknown)} of H.273, which cannot be converted. Convert it to "
            "sRGB"
        )
    return _make_profile(_WHITE, _PRIMARIES_BY_CODE[primaries], _CURVE_BY_CODE[transfer])


def _curve_of_gamma(gamma: float) -> Curve | None:
    if abs(2.2 * gamma - 1) <= MAX_GAMMA_ERROR:
        return _SRGB_CURVE
    low, high = _GAMMA_LIMITS
    return (1 / gamma, 1, 0, 0, 0) if low <= gamma <= high else None


@functools.lru_cache(maxsize=32)
def _make_profile(white: Point, primaries: tuple[Point, ...], curve: Curve) -> bytes:
    """Return an ICC profile of version 4 with three primaries and one curve.

    The result is b"" if no image can have these primaries.
    """
    if min(y for _, y in (white, *primaries)) <= 0:
        return b""
    try:
        columns = _adapt_to_d50(white, primaries).T
        tags = {
            name: b"XYZ \0\0\0\0" + _s15_fixed(column)
            for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
        }
        parameters = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _s15_fixed(curve)
    except (np.linalg.LinAlgError, struct.error, ValueError, OverflowError):
        return b""
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), parameters)
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + _s15_fixed(_D50)
    start, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        entries += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4xI", start + len(body), 0x04200000) + b"mntrRGB XYZ "
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _s15_fixed(_D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body


def _adapt_to_d50(white: Point, primaries: Sequence[Point]) -> np.ndarray:
    """Return the matrix [3 3] from linear RGB to XYZ, adapted to white D50 by Bradford's method.

    Raises:
        LinAlgError: the primaries are on one line.
    """
    columns = np.stack([_to_xyz(*point) for point in primaries], -1)
    matrix = columns * np.linalg.solve(columns, _to_xyz(*white))
    gain = (_BRADFORD @ _D50) / (_BRADFORD @ _to_xyz(*white))
    return np.linalg.inv(_BRADFORD) @ np.diag(gain) @ _BRADFORD @ matrix


def _to_xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1, (1 - x - y) / y])


def _s15_fixed(values: Sequence[float]) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(65_536 * value) for value in values))
