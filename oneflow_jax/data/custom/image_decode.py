"""Pictures of any origin, made into pixels of one size."""

import io
import pathlib
import warnings

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from oneflow_jax.data import pictures
from oneflow_jax.data.custom.errors import DataError

FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs"),
}
"""Formats that are read, and their extensions. Pillow knows more, one of which runs a program."""

EXTENSIONS = tuple(ending for endings in FORMATS.values() for ending in endings)

_MODES_16_BIT = ("I", "F")


def decode_image(
    data: bytes, name: str, pixels: int, max_megapixels: float
) -> tuple[UInt8[np.ndarray, "pixels pixels 3"], set[str]]:
    """The picture in a file's bytes, and what had to be put right: keys of `errors.REPAIRS`.

    Args:
        data: of the file.
        name: of the file, for its extension.
        pixels: height and width wanted; proportions are kept, the rest is white.
        max_megapixels: more are refused, before they are unpacked.

    Raises:
        Fault: it is none of `FORMATS`, damaged, or too large.
    """
    if not data:
        raise DataError("empty picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Each that matters is told by what follows.
        try:
            return _decode(data, name, pixels, max_megapixels)
        except DataError:
            raise
        except PIL.UnidentifiedImageError as error:
            raise DataError("not a picture", repr(data[:16])) from error
        except PIL.Image.DecompressionBombError as error:
            raise DataError("too large", str(error)) from error
        except Exception as error:  # Pillow's decoders raise whatever hostile bytes lead them to.
            raise DataError("damaged picture", f"{type(error).__name__}: {error}") from error


def _decode(
    data: bytes, name: str, pixels: int, max_megapixels: float
) -> tuple[UInt8[np.ndarray, "pixels pixels 3"], set[str]]:
    with PIL.Image.open(io.BytesIO(data), formats=list(FORMATS)) as picture:
        width, height = picture.size
        if not width * height:
            raise DataError("empty picture", f"{width} x {height}")
        if width * height > max_megapixels * 1e6:
            raise DataError("too large", f"{width} x {height} pixels")
        repairs = set()
        ending = pathlib.PurePath(name).suffix.lower()
        if ending in EXTENSIONS and ending not in FORMATS[picture.format or ""]:
            repairs.add("wrong extension")
        if getattr(picture, "is_animated", False):
            repairs.add("first frame")
        if picture.mode == "CMYK":
            repairs.add("CMYK")
        if picture.mode.startswith(_MODES_16_BIT):
            repairs.add("16 bits")
        if picture.has_transparency_data:
            repairs.add("transparency")
        if picture.format == "JPEG":
            # Far fewer pixels to unpack, and still twice what is needed.
            picture.draft(None, (2 * pixels, 2 * pixels))
        return pictures.to_square(picture, pixels), repairs
