"""Pictures from files, and to and from PNG bytes."""

import io
import pathlib

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from oneflow_jax import errors

READ_ERRORS = (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError)
"""What Pillow raises when it is first asked for the pixels of a file."""

_WHITE = (255, 255, 255)


def load(path: str | pathlib.Path, pixels: int) -> UInt8[np.ndarray, "pixels pixels 3"]:
    """Returns the picture in a file, as RGB of `pixels` x `pixels`, on white.

    Any mode that Pillow reads: transparency is composited on white, 16-bit grey is scaled to 8.
    The picture keeps its proportions and is padded with white to a square. Of an animation the
    first frame counts.

    Raises:
        UserError: no such file, or not a picture.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise errors.UserError(f"picture {str(path)!r}: there is no such file")
    try:
        with PIL.Image.open(path) as picture:
            return to_square(picture, pixels)
    except READ_ERRORS as error:
        message = f"picture {str(path)!r} cannot be read; give a PNG, JPEG, WebP or GIF file"
        raise errors.UserError(f"{message} ({error})") from error


def to_square(image: PIL.Image.Image, pixels: int) -> UInt8[np.ndarray, "pixels pixels 3"]:
    """Returns a picture of Pillow's as `load` does one in a file; raises one of `READ_ERRORS`."""
    image.load()
    return _pad_to_square(_composite_on_white(PIL.ImageOps.exif_transpose(image)), pixels)


def resize(image: UInt8[np.ndarray, "h w 3"], pixels: int) -> UInt8[np.ndarray, "n n 3"]:
    """Returns `image` at `pixels` x `pixels`, proportions kept, padded with white."""
    return _pad_to_square(PIL.Image.fromarray(image), pixels)


def to_png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Returns the picture as a PNG file; `from_png` gives back the very same pixels."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def from_png(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels of a PNG file as RGB on white."""
    with PIL.Image.open(io.BytesIO(data)) as picture:
        return np.array(_composite_on_white(picture))


def _composite_on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 on conversion, which would turn nearly all of it white.
        deep = np.asarray(image).astype(np.int64)
        image = PIL.Image.fromarray((deep.clip(0, 65535) // 257).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = PIL.Image.new("RGBA", image.size, (*_WHITE, 255))
    return PIL.Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _pad_to_square(image: PIL.Image.Image, pixels: int) -> UInt8[np.ndarray, "n n 3"]:
    if image.size == (pixels, pixels):
        return np.array(image)
    # As PIL.ImageOps.pad does, which fails where a side would shrink to nothing.
    longer = max(image.size)
    width, height = (max(1, round(side / longer * pixels)) for side in image.size)
    shrunk = image.resize((width, height), PIL.Image.Resampling.LANCZOS)
    ground = PIL.Image.new("RGB", (pixels, pixels), _WHITE)
    ground.paste(shrunk, (round((pixels - width) / 2), round((pixels - height) / 2)))
    return np.array(ground)
