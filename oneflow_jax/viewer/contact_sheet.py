"""Contact sheet: a PNG image of many images with captions."""

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw

from oneflow_jax.viewer import drawing, fonts, trajectory

CELL_WIDTH = 176  # width of an image on a contact sheet, in pixels
GAP = 28
MARGIN = 44
MARK_COLORS = {"right": fonts.GIVEN_COLOR, "wrong": fonts.ACCENT_COLOR, "": fonts.MUTED_COLOR}


def write_contact_sheet(
    path: str | os.PathLike[str],
    cells: Sequence[tuple[trajectory.Pixels, str, str]],
    columns: int,
    title: str,
    headers: Sequence[str] = (),
) -> None:
    """Write a grid of images with captions, in reading order.

    Args:
      path: path of the PNG; its folder is created if necessary.
      cells: (pixels, caption, mark) of each cell; the mark is a key of `MARK_COLORS`, which has
          the color of the caption.
      columns: number of cells in a row.
      title: title at the top.
      headers: header of each column, above the first row.
    """
    face = fonts.load_font("text", 22)
    captions = [fonts.wrap_text(caption, face, CELL_WIDTH) for _, caption, _ in cells]
    images = [drawing.upscale(Image.fromarray(pixels), CELL_WIDTH) for pixels, _, _ in cells]
    rows = range(0, len(cells), columns)
    heights = [
        max(image.height for image in images[at : at + columns])
        + 12
        + 27 * max(len(caption) for caption in captions[at : at + columns])
        for at in rows
    ]
    heading = fonts.load_font("text", 34)
    cell = max((image.width for image in images), default=CELL_WIDTH)
    width = 2 * MARGIN + columns * cell + (columns - 1) * GAP
    titles = fonts.wrap_text(title, heading, width - 2 * MARGIN)
    labels = [fonts.wrap_text(header, face, cell) for header in headers]
    header_top = MARGIN + 44 * len(titles) + 16
    top = header_top + 27 * max(map(len, labels), default=0) + (8 if labels else 0)
    canvas = Image.new(
        "RGB",
        (width, top + sum(heights) + GAP * len(heights) + MARGIN - GAP),
        fonts.BACKGROUND_COLOR,
    )
    draw = ImageDraw.Draw(canvas)
    drawing.draw_lines(draw, (MARGIN, MARGIN - 8), titles, heading, 44, fonts.TEXT_COLOR)
    for column, label in enumerate(labels):
        corner = (MARGIN + column * (cell + GAP), header_top)
        drawing.draw_lines(draw, corner, label, face, 27, fonts.MUTED_COLOR)
    for at, height in zip(rows, heights, strict=True):
        row = zip(images[at : at + columns], captions[at : at + columns], strict=True)
        for column, (image, caption) in enumerate(row):
            left = MARGIN + column * (cell + GAP)
            drawing.paste_framed(canvas, image, (left, top))
            below = (left, top + image.height + 8)
            drawing.draw_lines(draw, below, caption, face, 27, MARK_COLORS[cells[at + column][2]])
        top += height + GAP
    drawing.save_image(canvas, path)
