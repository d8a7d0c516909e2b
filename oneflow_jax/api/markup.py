"""Documents as self-contained HTML with embedded images."""

from collections.abc import Iterable

import PIL.Image

from oneflow_jax.data.document import Gap
from oneflow_jax.viewer import templates


def render_parts(parts: Iterable[str | PIL.Image.Image | Gap]) -> str:
    """Render the parts below one another: escaped text, images, and boxes for gaps."""
    return templates.render("document.html", parts=[(_name_kind(part), part) for part in parts])


def render_page(title: str, body: str) -> str:
    """Render a complete HTML page; the HTML in `body` is inserted without escaping."""
    return templates.render("document_page.html", title=title, body=body)


def _name_kind(part: str | PIL.Image.Image | Gap) -> str:
    """Return the kind of a part as the template names it: "image", "gap" or "text"."""
    if isinstance(part, PIL.Image.Image):
        return "image"
    return "gap" if isinstance(part, Gap) else "text"
