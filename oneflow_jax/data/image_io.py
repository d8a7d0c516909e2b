"""Reading of images from files, and conversion to and from PNG bytes."""

import io
import logging
import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from oneflow_jax import errors
from oneflow_jax.data import color_conversion, image_shapes, stated_colors, unread_formats

READ_ERRORS = (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError)
"""Exceptions that Pillow raises when it opens or decodes a file."""

_WHITE = (255, 255, 255)


def load(
    path: str | pathlib.Path, pixels: int, crop_sizes: Sequence[image_shapes.Size] = ()
) -> UInt8[np.ndarray, "h w 3"]:
    """Load the image in a file as RGB on white, of one of the sizes of a model.

    All modes that Pillow reads are supported. Transparent images are composited on white. Colors
    are converted to sRGB if the file has a color profile or states its colors in another way (see
    `stated_colors`). Gray values of more than 8 bits are scaled to 8 bits. The aspect ratio is
    kept, and the image is fitted as in `resize`. The first frame of an animation is used.

    Raises:
        UserError: the file does not exist, is not an image, or has an unknown range of values or an
            unknown color space.
    """
    name, path = str(path), pathlib.Path(path).expanduser()
    if not path.is_file():
        reason = "no such file"
        if "://" in name:
            reason = "an address, not a file. Download the image, and give the path of the file"
        elif not name or path.is_dir():
            reason = "a folder, not a file. Give the path of a file, as in <image:cat.png>"
        raise errors.UserError(f"image {name!r}: {reason}")
    try:
        with PIL.Image.open(path) as picture:
            warn_of_profile(picture, f"image {str(path)!r}")
            return to_size(picture, pixels, crop_sizes)
    except color_conversion.UNCONVERTIBLE as error:
        raise errors.UserError(f"image {str(path)!r}: {error}.") from error
    except READ_ERRORS as error:
        if unread := unread_formats.recognize(_read_start(path), name):
            message = f"image {str(path)!r}: {unread_formats.advise(unread)}."
            raise errors.UserError(message) from error
        message = f"image {str(path)!r} cannot be read. Give a PNG, JPEG, WebP or GIF file"
        raise errors.UserError(f"{message} ({error})") from error


def _read_start(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def to_size(
    image: PIL.Image.Image, pixels: int, crop_sizes: Sequence[image_shapes.Size] = ()
) -> UInt8[np.ndarray, "h w 3"]:
    """Convert a Pillow image in the same way as `load`.

    Raises:
        READ_ERRORS: see `to_upright`.
    """
    return resize_upright(to_upright(image), pixels, crop_sizes)


def to_upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Convert a Pillow image to RGB in the same way as `load`, upright and in its own size.

    Raises:
        READ_ERRORS: the image cannot be read, or has an unknown range of values or an unknown color
            space.
    """
    stated_colors.read_statements(image)
    image.load()
    limits = color_conversion.read_range(image)
    upright = PIL.ImageOps.exif_transpose(image)
    return _composite_on_white(upright, limits)


def warn_of_profile(image: PIL.Image.Image, name: str) -> None:
    """Log a warning if the color profile of an image cannot be used.

    Raises:
        UnknownColorsError: the image states colors that cannot be converted.
    """
    if color_conversion.check_profile(image) == color_conversion.UNUSABLE:
        logging.warning(
            "%s: the color profile is damaged or for another kind of image. The profile is "
            "ignored. Convert the image to sRGB if its colors look wrong.",
            name,
        )


def resize(
    image: UInt8[np.ndarray, "h w 3"], pixels: int, crop_sizes: Sequence[image_shapes.Size] = ()
) -> UInt8[np.ndarray, "H W 3"]:
    """Resize an image to one of the sizes of a model, and keep its aspect ratio.

    Args:
        image: the image.
        pixels: height and width to which the image is padded with white, without `crop_sizes`.
        crop_sizes: sizes (height, width) of which the nearest one is chosen. The image is scaled so
            that it covers this size, and its edges are cut off.
    """
    return resize_upright(PIL.Image.fromarray(image), pixels, crop_sizes)


def resize_upright(
    image: PIL.Image.Image, pixels: int, crop_sizes: Sequence[image_shapes.Size] = ()
) -> UInt8[np.ndarray, "H W 3"]:
    """Resize the result of `to_upright` in the same way as `resize`."""
    if not crop_sizes:
        return _pad_to_square(image, pixels)
    height, width = image_shapes.choose_size(*image.size, crop_sizes)
    if image.size == (width, height):
        return np.array(image)
    return np.array(PIL.ImageOps.fit(image, (width, height), PIL.Image.Resampling.LANCZOS))


def to_png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode the image losslessly as PNG."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def from_png(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a PNG file to RGB on white."""
    with PIL.Image.open(io.BytesIO(data)) as picture:
        return np.array(_composite_on_white(picture))


def _composite_on_white(
    image: PIL.Image.Image, limits: color_conversion.Range | None = None
) -> PIL.Image.Image:
    image = color_conversion.to_srgb(image, limits)
    if image.mode == "RGB":
        return image
    ground = PIL.Image.new("RGBA", image.size, (*_WHITE, 255))
    return PIL.Image.alpha_composite(ground, image).convert("RGB")


def _pad_to_square(image: PIL.Image.Image, pixels: int) -> UInt8[np.ndarray, "n n 3"]:
    if image.size == (pixels, pixels):
        return np.array(image)
    # PIL.ImageOps.pad gives the same result, but fails if the short side is rounded to 0 pixels.
    longer = max(image.size)
    width, height = (max(1, round(side / longer * pixels)) for side in image.size)
    shrunk = image.resize((width, height), PIL.Image.Resampling.LANCZOS)
    ground = PIL.Image.new("RGB", (pixels, pixels), _WHITE)
    ground.paste(shrunk, (round((pixels - width) / 2), round((pixels - height) / 2)))
    return np.array(ground)
