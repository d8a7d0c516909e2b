"""Documents as HTML that needs no other file: pictures are in it."""

import base64
import html
import io
from collections.abc import Iterable

import PIL.Image

from oneflow_jax.data.document import Gap

_LEAST = 96
"""Smaller pictures are shown at this width, in CSS pixels."""

_BLOCK = "max-width: 40em; font: 1.1em/1.5 serif; overflow-wrap: anywhere"
_PICTURE = "display: block; margin: .4em 0; max-width: 100%; image-rendering: pixelated"
_GAP = "border: 1px dashed; border-radius: .3em; padding: 0 .3em"


def block(parts: Iterable[str | PIL.Image.Image | Gap]) -> str:
    """The parts below one another; words are escaped, gaps are boxes with their tags."""
    return f'<div style="{_BLOCK}">{"".join(map(_element, parts))}</div>'


def page(title: str, body: str) -> str:
    """A whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n{body}\n</html>\n"
    )


def _element(part: str | PIL.Image.Image | Gap) -> str:
    if isinstance(part, PIL.Image.Image):
        return picture(part)
    if isinstance(part, Gap):
        return f'<span style="{_GAP}">{html.escape(str(part))}</span>'
    return f"<p>{html.escape(part)}</p>"


def picture(shown: PIL.Image.Image) -> str:
    """One picture, enlarged if it is small."""
    file = io.BytesIO()
    shown.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    width = max(_LEAST, shown.width)
    return f'<img style="{_PICTURE}" width="{width}" alt="" src="data:image/png;base64,{data}">'
