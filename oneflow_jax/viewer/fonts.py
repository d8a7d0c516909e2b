"""Type and colors of the PNG pictures: matplotlib's fonts, and lines broken to a width."""

import functools
import pathlib
from collections.abc import Iterable
from typing import Literal

import matplotlib
from PIL import ImageFont

BACKGROUND_COLOR = "#fffdf8"
TEXT_COLOR = "#26231d"
MUTED_COLOR = "#716a5d"
LINE_COLOR = "#e2dccd"
MASK_COLOR = "#d6cfbf"
ACCENT_COLOR = "#b4430f"
GIVEN_COLOR = "#1f6f6b"

Color = tuple[int, int, int]
Face = Literal["text", "italic", "label"]
_FONT_FILES = {
    "text": "STIXGeneral.ttf",
    "italic": "STIXGeneralItalic.ttf",
    "label": "DejaVuSans.ttf",
}


@functools.cache
def load_font(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """A font of `size` pixels."""
    folder = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / _FONT_FILES[face]), size)


def break_lines(
    texts: Iterable[str], face: ImageFont.FreeTypeFont, width: float
) -> list[list[tuple[int, float]]]:
    """Where each piece stands when the pieces are joined and broken into lines.

    A line breaks before a piece that starts with a space; a word of several pieces stays whole,
    even if it alone is wider than the line.

    Args:
      texts: texts with their leading spaces.
      face: the font that measures them.
      width: of a line, in pixels.

    Returns:
      For each line the (index, left edge in pixels) of its pieces, leading space included, so a
      piece that opens a line starts one space to the left of it.
    """
    groups: list[list[tuple[int, str]]] = []
    for index, piece in enumerate(texts):
        if piece.startswith(" ") or not groups:
            groups.append([])
        groups[-1].append((index, piece))
    broken: list[list[tuple[int, float]]] = []
    right = 0.0
    for group in groups:
        first = group[0][1]
        space = face.getlength(first[: len(first) - len(first.lstrip())])
        length = sum(face.getlength(piece) for _, piece in group)
        if not broken or right + length > width:
            broken.append([])
            right = -space
        for index, piece in group:
            broken[-1].append((index, right))
            right += face.getlength(piece)
    return broken


def wrap_text(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The lines of a text, none wider than `width` pixels unless a single word is."""
    words = text.split()
    pieces = [" " * (index > 0) + word for index, word in enumerate(words)]
    return [" ".join(words[i] for i, _ in line) for line in break_lines(pieces, face, width)]


def rgb(color: str) -> Color:
    """A color such as "#b4430f" as (red, green, blue), 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def mix_colors(low: str, high: str, fraction: float) -> Color:
    """The color that lies `fraction` of the way from `low` to `high`."""
    both = zip(rgb(low), rgb(high), strict=True)
    red, green, blue = (round(a + (b - a) * fraction) for a, b in both)
    return red, green, blue
