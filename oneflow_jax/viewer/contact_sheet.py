"""PNG images of samples: a contact sheet of many images, and a film strip of one trajectory."""

import io
import math
import os
from collections.abc import Sequence

from etils import epath
from PIL import Image, ImageDraw

from oneflow_jax.viewer import fonts, trajectory

CELL_WIDTH = 176  # width of an image on a contact sheet, in pixels
GAP = 28
MARGIN = 44
MARK_COLORS = {"right": fonts.GIVEN_COLOR, "wrong": fonts.ACCENT_COLOR, "": fonts.MUTED_COLOR}

LABEL_WIDTH = 200  # width of the column of times on a film strip
TEXT_WIDTH = 620
IMAGE_WIDTH = 224
FONT_SIZE = 36
LINE_HEIGHT = 52


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
    images = [_upscale(pixels, CELL_WIDTH) for pixels, _, _ in cells]
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
    _draw_lines(draw, (MARGIN, MARGIN - 8), titles, heading, 44, fonts.TEXT_COLOR)
    for column, label in enumerate(labels):
        corner = (MARGIN + column * (cell + GAP), header_top)
        _draw_lines(draw, corner, label, face, 27, fonts.MUTED_COLOR)
    for at, height in zip(rows, heights, strict=True):
        row = zip(images[at : at + columns], captions[at : at + columns], strict=True)
        for column, (image, caption) in enumerate(row):
            left = MARGIN + column * (cell + GAP)
            canvas.paste(image, (left, top))
            below = (left, top + image.height + 8)
            _draw_lines(draw, below, caption, face, 27, MARK_COLORS[cells[at + column][2]])
        top += height + GAP
    _save(canvas, path)


def write_filmstrip(
    path: str | os.PathLike[str], view: trajectory.TrajectoryView, steps: Sequence[int]
) -> None:
    """Write a film strip: for each chosen step, a row with its time, text and images.

    Args:
      path: path of the PNG; its folder is created if necessary.
      view: trajectory of the document.
      steps: indices into `view.frames`, from top to bottom; negative ones count from the end.
    """
    frames = [view.frames[step] for step in steps]
    heights = [max(_text_height(frame), IMAGE_WIDTH + 40) + 2 * GAP for frame in frames]
    columns = _assign_columns(frames)
    width = 2 * MARGIN + LABEL_WIDTH + TEXT_WIDTH + len(columns) * (IMAGE_WIDTH + 2 * GAP)
    canvas = Image.new("RGB", (width, sum(heights) + 2 * (MARGIN - GAP)), fonts.BACKGROUND_COLOR)
    draw = ImageDraw.Draw(canvas)
    top = MARGIN - GAP
    for index, (frame, height) in enumerate(zip(frames, heights, strict=True)):
        if index:
            draw.line((MARGIN, top, width - MARGIN, top), fonts.LINE_COLOR, 2)
        _draw_frame(canvas, draw, top + GAP, frame, columns)
        top += height
    _save(canvas, path)


def _assign_columns(frames: Sequence[trajectory.Frame]) -> dict[int, int]:
    """Return the column of each image, by its key: images of the last frame first, in order.

    Every image has its own column, so an image that a later step inserts overlaps no other one.
    """
    keys = dict.fromkeys(part.key for frame in reversed(frames) for part in frame.images())
    return {key: column for column, key in enumerate(keys)}


def _draw_frame(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    top: int,
    frame: trajectory.Frame,
    columns: dict[int, int],
) -> None:
    """Draw one row of a film strip; `columns` maps the key of an image to its column."""
    time = f" = {frame.time:.2f}"
    draw.text((MARGIN, top), "t", fonts.ACCENT_COLOR, fonts.load_font("italic", FONT_SIZE))
    draw.text((MARGIN + 14, top), time, fonts.TEXT_COLOR, fonts.load_font("text", FONT_SIZE))
    down = top
    for run in frame.text_spans():
        down = _draw_text_span(draw, (MARGIN + LABEL_WIDTH, down), run) + 16
    for part in frame.images():
        left = (
            MARGIN
            + LABEL_WIDTH
            + TEXT_WIDTH
            + 2 * GAP
            + columns[part.key] * (IMAGE_WIDTH + 2 * GAP)
        )
        image = _upscale(part.x_t, IMAGE_WIDTH)
        canvas.paste(image, (left, top))
        line = top + image.height + 14
        _draw_progress(draw, (left, line), (left + image.width, line), part)


def _draw_text_span(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], span: trajectory.TextSpan
) -> int:
    """Draw a text span, with tokens that fade in by confidence; return its lower edge in pixels."""
    face = fonts.load_font("text", FONT_SIZE)
    left, top = corner
    lines = fonts.break_lines((word.text for word in span.tokens), face, TEXT_WIDTH - 28)
    bottom = top + LINE_HEIGHT * max(1, len(lines))
    _draw_progress(draw, (left, top + 6), (left, bottom - 8), span)
    for number, line in enumerate(lines):
        for index, start in line:
            place = (left + 28 + start, top + LINE_HEIGHT * number)
            _draw_token(draw, place, span.tokens[index])
    return bottom


def _draw_token(
    draw: ImageDraw.ImageDraw, position: tuple[float, float], token: trajectory.TokenView
) -> None:
    """Draw a token: as confidence rises, its block fades out and its text fades in."""
    face = fonts.load_font("text", FONT_SIZE)
    sure = token.opacity()
    body = token.text.lstrip()
    left = position[0] + face.getlength(token.text[: len(token.text) - len(body)])
    right = left + max(face.getlength(body), 12 * (1 - sure))
    top = position[1]
    block = fonts.mix_colors(fonts.MASK_COLOR, fonts.BACKGROUND_COLOR, sure)
    draw.rounded_rectangle((left + 1, top + 10, max(left + 1, right - 1), top + 40), 5, block)
    if sure:  # At opacity 0 draw no text: its descenders would stick out of the block.
        draw.text(
            (left, top), body, fonts.mix_colors(fonts.MASK_COLOR, fonts.TEXT_COLOR, sure), face
        )


def _draw_progress(
    draw: ImageDraw.ImageDraw, start: tuple[int, int], end: tuple[int, int], part: trajectory.Part
) -> None:
    """Draw a progress line that is filled up to the fraction `part.time`."""
    draw.line((*start, *end), fonts.LINE_COLOR, 4)
    if part.time:  # Pillow would draw a dot for a line of length 0.
        reached = (a + (b - a) * part.time for a, b in zip(start, end, strict=True))
        draw.line((*start, *reached), fonts.GIVEN_COLOR if part.given else fonts.ACCENT_COLOR, 4)


def _text_height(frame: trajectory.Frame) -> int:
    """Return the total height of a frame's text spans, in pixels."""
    face = fonts.load_font("text", FONT_SIZE)
    broken = [
        fonts.break_lines((word.text for word in run.tokens), face, TEXT_WIDTH - 28)
        for run in frame.text_spans()
    ]
    return sum(LINE_HEIGHT * max(1, len(lines)) + 16 for lines in broken)


def _upscale(pixels: trajectory.Pixels, width: int) -> Image.Image:
    """Enlarge an image by the integer factor for which its width is closest to `width` pixels."""
    factor = max(1, math.floor(width / pixels.shape[1] + 0.5))
    size = (pixels.shape[1] * factor, pixels.shape[0] * factor)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def _draw_lines(
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


def _save(canvas: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a PNG, and create its folder if necessary."""
    file = io.BytesIO()
    canvas.save(file, "PNG")
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.getvalue())
