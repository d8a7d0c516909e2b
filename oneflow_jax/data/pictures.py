"""Read images from files, and convert them to and from PNG bytes."""

import io
import pathlib

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from oneflow_jax import errors

READ_ERRORS = (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError)
"""Exceptions that Pillow raises when it decodes the pixels of a file."""

_WHITE = (255, 255, 255)


def load(path: str | pathlib.Path, pixels: int) -> UInt8[np.ndarray, "pixels pixels 3"]:
    """Load the image in a file as RGB of `pixels` x `pixels` on white.

    All modes that Pillow reads are supported: transparency is composited on white, and 16-bit gray
    is scaled to 8 bits. The aspect ratio is kept and the image is padded with white to a square.
    The first frame of an animation is used.

    Raises:
        UserError: the file does not exist or is not an image.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise errors.UserError(f"image {str(path)!r}: no such file")
    try:
        with PIL.Image.open(path) as picture:
            return to_square(picture, pixels)
    except READ_ERRORS as error:
        message = f"image {str(path)!r} cannot be read. Give a PNG, JPEG, WebP or GIF file"
        raise errors.UserError(f"{message} ({error})") from error


def to_square(image: PIL.Image.Image, pixels: int) -> UInt8[np.ndarray, "pixels pixels 3"]:
    """Convert a Pillow image as `load` does for a file. Raises one of `READ_ERRORS`."""
    image.load()
    return _pad_to_square(_composite_on_white(PIL.ImageOps.exif_transpose(image)), pixels)


def resize(image: UInt8[np.ndarray, "h w 3"], pixels: int) -> UInt8[np.ndarray, "n n 3"]:
    """Resize `image` to `pixels` x `pixels`, with its aspect ratio kept and white padding."""
    return _pad_to_square(PIL.Image.fromarray(image), pixels)


def to_png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode the image as PNG; `from_png` returns exactly these pixels."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def from_png(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a PNG file to RGB on white."""
    with PIL.Image.open(io.BytesIO(data)) as picture:
        return np.array(_composite_on_white(picture))


def _composite_on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit gray at 255 on conversion, which would turn nearly all pixels white.
        deep = np.asarray(image).astype(np.int64)
        image = PIL.Image.fromarray((deep.clip(0, 65535) // 257).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = PIL.Image.new("RGBA", image.size, (*_WHITE, 255))
    return PIL.Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _pad_to_square(image: PIL.Image.Image, pixels: int) -> UInt8[np.ndarray, "n n 3"]:
    if image.size == (pixels, pixels):
        return np.array(image)
    # Equivalent to PIL.ImageOps.pad, which fails if the short side is rounded to 0 pixels.
    longer = max(image.size)
    width, height = (max(1, round(side / longer * pixels)) for side in image.size)
    shrunk = image.resize((width, height), PIL.Image.Resampling.LANCZOS)
    ground = PIL.Image.new("RGB", (pixels, pixels), _WHITE)
    ground.paste(shrunk, (round((pixels - width) / 2), round((pixels - height) / 2)))
    return np.array(ground)
