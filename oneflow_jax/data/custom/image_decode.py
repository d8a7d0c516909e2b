"""Decoding of images from any source to pixels of the sizes of a model."""

import io
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from oneflow_jax.data import (
    color_conversion,
    image_io,
    image_shapes,
    stated_colors,
    unread_formats,
)
from oneflow_jax.data.custom.errors import DataError

FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs"),
}
"""Supported formats and their extensions. Pillow's other formats are disabled, because Pillow would
start another program to decode one of them (EPS)."""

EXTENSIONS = tuple(
    ending
    for endings in (*FORMATS.values(), *unread_formats.EXTENSIONS.values())
    for ending in endings
)
"""Extensions of all image files. Those of unsupported formats are included, to be reported."""

_DEEP_MODES = ("I", "F")

MIN_KEPT = 0.75
"""If less than this fraction of an image is left after cropping, the image counts as repaired."""


def decode_image(
    data: bytes,
    name: str,
    pixels: int,
    max_megapixels: float,
    crop_sizes: Sequence[image_shapes.Size] = (),
) -> tuple[UInt8[np.ndarray, "h w 3"], set[str]]:
    """Decode an image; return its pixels and the set of repairs (keys of `REPAIRS`).

    Args:
        data: content of the file.
        name: name of the file, for its extension.
        pixels: height and width of the result. The aspect ratio is kept, and the margins are white.
        max_megapixels: maximum size in megapixels; a larger image is rejected before decoding.
        crop_sizes: sizes (height, width), to the nearest of which the image is scaled and cropped
            instead.

    Raises:
        DataError: the file is empty, damaged or too large, its format is not one of `FORMATS`, or
            its colors cannot be converted.
    """
    if not data:
        raise DataError("empty picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Relevant problems are detected below.
        try:
            return _decode(data, name, pixels, max_megapixels, crop_sizes)
        except DataError:
            raise
        except color_conversion.UnknownRangeError as error:
            raise DataError("no range of values", str(error)) from error
        except stated_colors.UnknownColorsError as error:
            raise DataError("unknown colors", str(error)) from error
        except PIL.UnidentifiedImageError as error:
            if unread := unread_formats.recognize(data, name):
                raise DataError("unread format", unread_formats.advise(unread)) from error
            raise DataError("not a picture", repr(data[:16])) from error
        except PIL.Image.DecompressionBombError as error:
            raise DataError("too large", str(error)) from error
        except Exception as error:  # Pillow raises many types of exceptions on malicious bytes.
            raise DataError("damaged picture", f"{type(error).__name__}: {error}") from error


def _decode(
    data: bytes,
    name: str,
    pixels: int,
    max_megapixels: float,
    crop_sizes: Sequence[image_shapes.Size],
) -> tuple[UInt8[np.ndarray, "h w 3"], set[str]]:
    with PIL.Image.open(io.BytesIO(data), formats=list(FORMATS)) as picture:
        _check_camera(picture, name)
        width, height = picture.size
        if not width * height:
            raise DataError("empty picture", f"{width} x {height}")
        if width * height > max_megapixels * 1e6:
            raise DataError("too large", f"{width} x {height} pixels")
        repairs = set()
        ending = pathlib.PurePath(name).suffix.lower()
        # Pillow reports the format MPO for a JPEG file with several images. Phones write such
        # files.
        image_format = "JPEG" if picture.format == "MPO" else picture.format or ""
        if ending in EXTENSIONS and ending not in FORMATS[image_format]:
            repairs.add("wrong extension")
        if getattr(picture, "is_animated", False):
            repairs.add("first frame")
        if picture.mode == "CMYK":
            repairs.add("CMYK")
        if picture.mode.startswith(_DEEP_MODES):
            repairs.add("16 bits")
        if profile := color_conversion.check_profile(picture):
            repairs.add(profile)
        if picture.has_transparency_data:
            repairs.add("transparency")
        if image_format == "JPEG":
            # To save time, decode at a smaller size, but at least at twice the size of the result.
            longest = max([pixels, *map(max, crop_sizes)])
            picture.draft(None, (2 * longest, 2 * longest))
        upright = image_io.to_upright(picture)
        resized = image_io.resize_upright(upright, pixels, crop_sizes)
        kept = image_shapes.compute_kept_fraction(upright.size, resized.shape[:2])
        if crop_sizes and kept < MIN_KEPT:
            repairs.add("cropped")
        return resized, repairs


def _check_camera(picture: PIL.Image.Image, name: str) -> None:
    """Check that a TIFF file is not a camera's raw file: Pillow would read only its thumbnail.

    Raises:
        DataError: the file is a raw file of a camera.
    """
    tags = getattr(picture, "tag_v2", {})
    raw = name.lower().endswith(unread_formats.EXTENSIONS["camera raw"])
    if tags and (raw or unread_formats.DNG_TAG in tags):
        raise DataError("unread format", unread_formats.advise("camera raw"))
