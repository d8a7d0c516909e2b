"""Fonts, colors and line breaking for PNG images; the font files come with matplotlib."""

import functools
import pathlib
from collections.abc import Iterable
from typing import Literal, NamedTuple

import matplotlib
from PIL import ImageFont

BACKGROUND_COLOR = "#fffdf8"
TEXT_COLOR = "#26231d"
MUTED_COLOR = "#716a5d"
LINE_COLOR = "#e2dccd"
MASK_COLOR = "#d6cfbf"
ACCENT_COLOR = "#b4430f"
GIVEN_COLOR = "#1f6f6b"


class Palette(NamedTuple):
    """Colors of a plot; those of `theme.css`."""

    background: str
    text: str
    muted: str
    line: str
    accent: str


LIGHT = Palette(BACKGROUND_COLOR, TEXT_COLOR, MUTED_COLOR, LINE_COLOR, ACCENT_COLOR)
DARK = Palette("#1d1b18", "#ebe5d9", "#a39b8c", "#34312b", "#f29a5f")

Color = tuple[int, int, int]
Face = Literal["text", "italic", "label"]
_FONT_FILES = {
    "text": "STIXGeneral.ttf",
    "italic": "STIXGeneralItalic.ttf",
    "label": "DejaVuSans.ttf",
}


@functools.cache
def load_font(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """Load a font of `size` pixels."""
    folder = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / _FONT_FILES[face]), size)


def break_lines(
    texts: Iterable[str], face: ImageFont.FreeTypeFont, width: float
) -> list[list[tuple[int, float]]]:
    """Break a sequence of tokens into lines, and compute the horizontal position of each token.

    A line breaks only before a token that starts with a space. So a word of several tokens is never
    split, even if it is wider than a line.

    Args:
      texts: texts of the tokens, with their leading spaces.
      face: font of the text.
      width: width of a line, in pixels.

    Returns:
      A list of lines; each line is a list of (index, left edge in pixels), one for each token. The
      left edge is that of the token's leading space, so the first token starts left of the line.
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
    """Wrap a text into lines of at most `width` pixels; a wider word gets its own line."""
    words = text.split()
    pieces = [" " * (index > 0) + word for index, word in enumerate(words)]
    return [" ".join(words[i] for i, _ in line) for line in break_lines(pieces, face, width)]


def rgb(color: str) -> Color:
    """Convert a color such as "#b4430f" to (red, green, blue), 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def mix_colors(low: str, high: str, fraction: float) -> Color:
    """Interpolate linearly between two colors; `fraction` 0 is `low` and 1 is `high`."""
    both = zip(rgb(low), rgb(high), strict=True)
    red, green, blue = (round(a + (b - a) * fraction) for a, b in both)
    return red, green, blue
