"""Documents as HTML that needs no other file: pictures are in it."""

import base64
import html
import io
from collections.abc import Iterable

import PIL.Image

from oneflow_jax.data.document import Gap

_MIN_IMAGE_WIDTH = 96
"""Smaller pictures are shown at this width, in CSS pixels."""

_BLOCK_STYLE = "max-width: 40em; font: 1.1em/1.5 serif; overflow-wrap: anywhere"
_IMAGE_STYLE = "display: block; margin: .4em 0; max-width: 100%; image-rendering: pixelated"
_GAP_STYLE = "border: 1px dashed; border-radius: .3em; padding: 0 .3em"


def render_parts(parts: Iterable[str | PIL.Image.Image | Gap]) -> str:
    """The parts below one another; words are escaped, gaps are boxes with their tags."""
    return f'<div style="{_BLOCK_STYLE}">{"".join(map(_render_part, parts))}</div>'


def render_page(title: str, body: str) -> str:
    """A whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n{body}\n</html>\n"
    )


def _render_part(part: str | PIL.Image.Image | Gap) -> str:
    if isinstance(part, PIL.Image.Image):
        return render_image(part)
    if isinstance(part, Gap):
        return f'<span style="{_GAP_STYLE}">{html.escape(str(part))}</span>'
    return f"<p>{html.escape(part)}</p>"


def render_image(image: PIL.Image.Image) -> str:
    """One picture, enlarged if it is small."""
    file = io.BytesIO()
    image.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    width = max(_MIN_IMAGE_WIDTH, image.width)
    return f'<img style="{_IMAGE_STYLE}" width="{width}" alt="" src="data:image/png;base64,{data}">'
