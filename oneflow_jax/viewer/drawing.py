"""Drawing of images and text with Pillow, shared by the modules that write image files."""

import io
import math
import os
from collections.abc import Sequence

from etils import epath
from PIL import Image, ImageDraw

from oneflow_jax.viewer import fonts


def upscale(image: Image.Image, width: int) -> Image.Image:
    """Enlarge an image by the integer factor for which its width is closest to `width` pixels."""
    return image.resize(enlarge_size(image.size, width), Image.Resampling.NEAREST)


def enlarge_size(size: tuple[int, int], width: int) -> tuple[int, int]:
    """Return the size (width, height) to which `upscale` enlarges an image of this size."""
    factor = max(1, math.floor(width / size[0] + 0.5))
    return size[0] * factor, size[1] * factor


def paste_framed(canvas: Image.Image, image: Image.Image, corner: tuple[int, int]) -> None:
    """Paste an image with a thin frame around it, so that a white image can be seen on paper."""
    left, top = corner
    box = (left - 1, top - 1, left + image.width, top + image.height)
    ImageDraw.Draw(canvas).rectangle(box, outline=fonts.LINE_COLOR)
    canvas.paste(image, corner)


def draw_lines(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    lines: Sequence[str],
    face: fonts.ImageFont.FreeTypeFont,
    line_height: int,
    color: str,
) -> None:
    """Draw lines of text, `line_height` pixels apart."""
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + line_height * number), line, color, face)


def save_image(
    image: Image.Image,
    path: str | os.PathLike[str],
    **options: bool | int | list[int] | list[Image.Image],
) -> None:
    """Write an image in the format of the path's ending, and create its folder if necessary.

    `options` are those of the format's writer in Pillow. The path may be in a bucket.
    """
    target = epath.Path(path)
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[target.suffix.lower()], **options)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.getvalue())
