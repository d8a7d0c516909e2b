"""PNG pictures of samples: a contact sheet of many, and a film strip of one document forming."""

import io
import math
import os
from collections.abc import Sequence

from etils import epath
from PIL import Image, ImageDraw

from oneflow_jax.viewer import fonts, trajectory

CELL = 176  # width of a picture on a contact sheet, in pixels
GAP = 28
MARGIN = 44
MARKS = {"right": fonts.GIVEN, "wrong": fonts.ACCENT, "": fonts.MUTED}

LABEL = 200  # width of the column of times on a film strip
TEXT = 620
PICTURE = 224
FONT = 36
LEADING = 52


def contact_sheet(
    path: str | os.PathLike[str],
    cells: Sequence[tuple[trajectory.Pixels, str, str]],
    columns: int,
    title: str,
) -> None:
    """Writes pictures with captions in a grid, in reading order.

    Args:
      path: where the PNG goes; its folder is made if need be.
      cells: (pixels, caption, mark): the mark, one of `MARKS`, colors the caption.
      columns: cells in a row.
      title: a line at the top.
    """
    face = fonts.font("text", 22)
    captions = [fonts.wrapped(caption, face, CELL) for _, caption, _ in cells]
    images = [_enlarged(pixels, CELL) for pixels, _, _ in cells]
    rows = range(0, len(cells), columns)
    heights = [
        max(image.height for image in images[at : at + columns])
        + 12
        + 27 * max(len(caption) for caption in captions[at : at + columns])
        for at in rows
    ]
    heading = fonts.font("text", 34)
    cell = max((image.width for image in images), default=CELL)
    width = 2 * MARGIN + columns * cell + (columns - 1) * GAP
    titles = fonts.wrapped(title, heading, width - 2 * MARGIN)
    top = MARGIN + 44 * len(titles) + 16
    canvas = Image.new(
        "RGB", (width, top + sum(heights) + GAP * len(heights) + MARGIN - GAP), fonts.PAPER
    )
    draw = ImageDraw.Draw(canvas)
    _write_lines(draw, (MARGIN, MARGIN - 8), titles, heading, 44, fonts.INK)
    for at, height in zip(rows, heights, strict=True):
        row = zip(images[at : at + columns], captions[at : at + columns], strict=True)
        for column, (image, caption) in enumerate(row):
            left = MARGIN + column * (cell + GAP)
            canvas.paste(image, (left, top))
            below = (left, top + image.height + 8)
            _write_lines(draw, below, caption, face, 27, MARKS[cells[at + column][2]])
        top += height + GAP
    _save(canvas, path)


def filmstrip(path: str | os.PathLike[str], told: trajectory.Story, steps: Sequence[int]) -> None:
    """Writes one row for each chosen step: its time, its words, and its pictures beside them.

    Args:
      path: where the PNG goes; its folder is made if need be.
      told: the document.
      steps: indices into `told.frames`, top to bottom; negative ones count from the end.
    """
    frames = [told.frames[step] for step in steps]
    heights = [max(_text_height(frame), PICTURE + 40) + 2 * GAP for frame in frames]
    count = max((len(frame.pictures()) for frame in frames), default=0)
    width = 2 * MARGIN + LABEL + TEXT + count * (PICTURE + 2 * GAP)
    canvas = Image.new("RGB", (width, sum(heights) + 2 * (MARGIN - GAP)), fonts.PAPER)
    draw = ImageDraw.Draw(canvas)
    order = {
        part.key: column
        for frame in reversed(frames)  # the last frame's order; what is gone by then comes after
        for column, part in enumerate(frame.pictures())
    }
    top = MARGIN - GAP
    for index, (frame, height) in enumerate(zip(frames, heights, strict=True)):
        if index:
            draw.line((MARGIN, top, width - MARGIN, top), fonts.LINE, 2)
        _draw_frame(canvas, draw, top + GAP, frame, order)
        top += height
    _save(canvas, path)


def _draw_frame(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    top: int,
    frame: trajectory.Frame,
    order: dict[int, int],
) -> None:
    """Draws one row of a film strip; `order` says in which column each picture stands."""
    time = f" = {frame.clock:.2f}"
    draw.text((MARGIN, top), "t", fonts.ACCENT, fonts.font("italic", FONT))
    draw.text((MARGIN + 14, top), time, fonts.INK, fonts.font("text", FONT))
    down = top
    for run in frame.runs():
        down = _draw_run(draw, (MARGIN + LABEL, down), run) + 16
    for part in frame.pictures():
        left = MARGIN + LABEL + TEXT + 2 * GAP + order[part.key] * (PICTURE + 2 * GAP)
        image = _enlarged(part.state, PICTURE)
        canvas.paste(image, (left, top))
        line = top + image.height + 14
        _draw_clock(draw, (left, line), (left + image.width, line), part)


def _draw_run(draw: ImageDraw.ImageDraw, corner: tuple[int, int], run: trajectory.TextRun) -> int:
    """Draws the words of a run, masked as far as they are uncertain; returns its lower edge."""
    face = fonts.font("text", FONT)
    left, top = corner
    lines = fonts.lines((word.text for word in run.words), face, TEXT - 28)
    bottom = top + LEADING * max(1, len(lines))
    _draw_clock(draw, (left, top + 6), (left, bottom - 8), run)
    for number, line in enumerate(lines):
        for index, start in line:
            place = (left + 28 + start, top + LEADING * number)
            _draw_word(draw, place, run.words[index])
    return bottom


def _draw_word(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], word: trajectory.Word
) -> None:
    """Draws a word as a block that pales, and its text that darkens, with its certainty."""
    face = fonts.font("text", FONT)
    sure = word.legibility()
    body = word.text.lstrip()
    left = place[0] + face.getlength(word.text[: len(word.text) - len(body)])
    right = left + max(face.getlength(body), 12 * (1 - sure))
    top = place[1]
    block = fonts.mixed(fonts.MASK, fonts.PAPER, sure)
    draw.rounded_rectangle((left + 1, top + 10, max(left + 1, right - 1), top + 40), 5, block)
    if sure:  # letters reach below the block, so they must not be drawn in its color either
        draw.text((left, top), body, fonts.mixed(fonts.MASK, fonts.INK, sure), face)


def _draw_clock(
    draw: ImageDraw.ImageDraw, start: tuple[int, int], end: tuple[int, int], part: trajectory.Part
) -> None:
    """Draws a line that is filled as far as the part's clock has come."""
    draw.line((*start, *end), fonts.LINE, 4)
    if part.clock:  # Pillow draws a dot for a line without length
        reached = (a + (b - a) * part.clock for a, b in zip(start, end, strict=True))
        draw.line((*start, *reached), fonts.GIVEN if part.given else fonts.ACCENT, 4)


def _text_height(frame: trajectory.Frame) -> int:
    """The height of all runs of a frame, in pixels."""
    face = fonts.font("text", FONT)
    broken = [
        fonts.lines((word.text for word in run.words), face, TEXT - 28) for run in frame.runs()
    ]
    return sum(LEADING * max(1, len(lines)) + 16 for lines in broken)


def _enlarged(pixels: trajectory.Pixels, width: int) -> Image.Image:
    """The picture enlarged by the whole factor that brings it nearest to `width`; never shrunk."""
    factor = max(1, math.floor(width / pixels.shape[1] + 0.5))
    size = (pixels.shape[1] * factor, pixels.shape[0] * factor)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def _write_lines(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    lines: Sequence[str],
    face: fonts.ImageFont.FreeTypeFont,
    leading: int,
    color: str,
) -> None:
    """Draws lines of text, `leading` pixels apart."""
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + leading * number), line, color, face)


def _save(canvas: Image.Image, path: str | os.PathLike[str]) -> None:
    """Writes a PNG, whose folder is made if need be."""
    file = io.BytesIO()
    canvas.save(file, "PNG")
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.getvalue())
