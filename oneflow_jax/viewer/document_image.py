"""Document as one image: its texts and images below one another, in reading order."""

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw

from oneflow_jax.data.document import Gap
from oneflow_jax.viewer import drawing, fonts

WIDTH, MARGIN, SPACE = 720, 44, 20  # in pixels
FONT_SIZE, LINE_HEIGHT = 30, 40
IMAGE_WIDTH, MAX_IMAGE_HEIGHT = 256, 1_024


def write_document_image(
    path: str | os.PathLike[str], parts: Sequence[str | Image.Image | Gap]
) -> None:
    """Write an image file of a document; a gap is drawn as its prompt syntax, in muted color.

    Small images are enlarged by an integer factor, and images that are too wide are scaled down.

    Args:
      path: path of the file; its ending selects the format, such as .png.
      parts: texts, images and gaps, in reading order.
    """
    face = fonts.load_font("text", FONT_SIZE)
    blocks: list[tuple[Image.Image | list[str], str]] = []
    for part in parts:
        if isinstance(part, Image.Image):
            image = drawing.upscale(part.convert("RGB"), IMAGE_WIDTH)
            image.thumbnail((WIDTH - 2 * MARGIN, MAX_IMAGE_HEIGHT))
            blocks.append((image, fonts.TEXT_COLOR))
        else:
            color = fonts.MUTED_COLOR if isinstance(part, Gap) else fonts.TEXT_COLOR
            blocks.append((fonts.wrap_text(str(part), face, WIDTH - 2 * MARGIN), color))
    heights = [
        block.height if isinstance(block, Image.Image) else LINE_HEIGHT * len(block)
        for block, _ in blocks
    ]
    total = 2 * MARGIN + sum(heights) + SPACE * max(0, len(blocks) - 1)
    canvas = Image.new("RGB", (WIDTH, total), fonts.BACKGROUND_COLOR)
    draw = ImageDraw.Draw(canvas)
    top = MARGIN
    for (block, color), height in zip(blocks, heights, strict=True):
        if isinstance(block, Image.Image):
            drawing.paste_framed(canvas, block, (MARGIN, top))
        else:
            drawing.draw_lines(draw, (MARGIN, top), block, face, LINE_HEIGHT, color)
        top += height + SPACE
    drawing.save_image(canvas, path)
