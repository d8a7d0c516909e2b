"""Film strip and animation of one trajectory: its times, text and images at each step."""

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw

from oneflow_jax.viewer import drawing, fonts, trajectory

GAP = 28
MARGIN = 44
LABEL_WIDTH = 200  # width of the column of times
TEXT_WIDTH = 620
IMAGE_WIDTH = 224
FONT_SIZE = 36
LINE_HEIGHT = 52
FRAME_MS, LAST_FRAME_MS = 250, 2_000  # duration of a frame of an animation, in milliseconds


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
    heights = [_frame_height(frame) + 2 * GAP for frame in frames]
    lefts, width = _place_images(frames)
    canvas = Image.new("RGB", (width, sum(heights) + 2 * (MARGIN - GAP)), fonts.BACKGROUND_COLOR)
    draw = ImageDraw.Draw(canvas)
    top = MARGIN - GAP
    for index, (frame, height) in enumerate(zip(frames, heights, strict=True)):
        if index:
            draw.line((MARGIN, top, width - MARGIN, top), fonts.LINE_COLOR, 2)
        _draw_frame(canvas, draw, top + GAP, frame, lefts)
        top += height
    drawing.save_image(canvas, path)


def write_animation(path: str | os.PathLike[str], frames: Sequence[trajectory.Frame]) -> None:
    """Write an animated GIF or WebP, by the ending of the path; it shows each frame in turn.

    The animation repeats without end. The last frame, with the finished document, stays longer.

    Args:
      path: path of the file, which ends in .gif or .webp; its folder is created if necessary.
      frames: the document at each step, at least one.
    """
    drawn = draw_frames(frames)
    drawing.save_image(
        drawn[0],
        path,
        save_all=True,
        append_images=drawn[1:],
        duration=[FRAME_MS] * (len(drawn) - 1) + [LAST_FRAME_MS],
        loop=0,
    )


def draw_frames(frames: Sequence[trajectory.Frame]) -> list[Image.Image]:
    """Draw each frame as an image of its own; all images have equal sizes.

    Args:
      frames: the document at each step, at least one.
    """
    lefts, width = _place_images(frames)
    height = max(map(_frame_height, frames)) + 2 * MARGIN
    drawn = []
    for frame in frames:
        canvas = Image.new("RGB", (width, height), fonts.BACKGROUND_COLOR)
        _draw_frame(canvas, ImageDraw.Draw(canvas), MARGIN, frame, lefts)
        drawn.append(canvas)
    return drawn


def _place_images(frames: Sequence[trajectory.Frame]) -> tuple[dict[int, int], int]:
    """Return the left edge of each image by its key, and the width of the strip, in pixels.

    The columns begin with the images of the last frame, in order. Every image has its own column,
    so an image that a later step inserts overlaps no other one.
    """
    widths: dict[int, int] = {}
    for part in (part for frame in reversed(frames) for part in frame.images()):
        widths[part.key] = max(widths.get(part.key, IMAGE_WIDTH), _measure_image(part)[0])
    lefts, left = {}, MARGIN + LABEL_WIDTH + TEXT_WIDTH
    for key, width in widths.items():
        lefts[key] = left + 2 * GAP
        left = lefts[key] + width
    return lefts, left + MARGIN


def _draw_frame(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    top: int,
    frame: trajectory.Frame,
    lefts: dict[int, int],
) -> None:
    """Draw one row of a film strip; `lefts` maps the key of an image to its left edge."""
    time = f" = {frame.time:.2f}"
    draw.text((MARGIN, top), "t", fonts.ACCENT_COLOR, fonts.load_font("italic", FONT_SIZE))
    draw.text((MARGIN + 14, top), time, fonts.TEXT_COLOR, fonts.load_font("text", FONT_SIZE))
    down = top
    for run in frame.text_spans():
        down = _draw_text_span(draw, (MARGIN + LABEL_WIDTH, down), run) + 16
    for part in frame.images():
        left = lefts[part.key]
        image = drawing.upscale(Image.fromarray(part.x_t), IMAGE_WIDTH)
        drawing.paste_framed(canvas, image, (left, top))
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


def _measure_image(part: trajectory.ImageView) -> tuple[int, int]:
    """Return width and height of an image as it is drawn, in pixels."""
    height, width, _ = part.x_t.shape
    return drawing.enlarge_size((width, height), IMAGE_WIDTH)


def _frame_height(frame: trajectory.Frame) -> int:
    """Return the height of a frame: of its text or of its highest image, in pixels."""
    heights = [_measure_image(part)[1] for part in frame.images()]
    return max(_text_height(frame), max([IMAGE_WIDTH, *heights]) + 40)


def _text_height(frame: trajectory.Frame) -> int:
    """Return the total height of a frame's text spans, in pixels."""
    face = fonts.load_font("text", FONT_SIZE)
    broken = [
        fonts.break_lines((word.text for word in run.tokens), face, TEXT_WIDTH - 28)
        for run in frame.text_spans()
    ]
    return sum(LINE_HEIGHT * max(1, len(lines)) + 16 for lines in broken)
