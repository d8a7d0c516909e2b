"""Renders the Jinja templates of all HTML pages and fragments.

The templates are in the folder of this module, beside the style sheets and scripts of the pages.
Jinja escapes every value unless the template marks it with the filter `safe`. A missing value is an
error.
"""

import base64
import io
import json
import os
from typing import Any

import jinja2
from etils import epath
from PIL import Image

from oneflow_jax.viewer import fonts


def render(template: str, **fields: Any) -> str:  # noqa: ANN401 - any value of a template
    """Render the template in the file `template`, with `fields` as its variables, to text."""
    return _ENVIRONMENT.get_template(template).render(fields)


def write_page(
    path: str | os.PathLike[str],
    template: str,
    **fields: Any,  # noqa: ANN401 - any value of a template
) -> None:
    """Render a template to the file `path`, and create its folder if necessary."""
    text = render(template, **fields)
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def _make_environment() -> jinja2.Environment:
    """Create the environment with the functions and filters that templates use."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("oneflow_jax.viewer", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"fonts": fonts, "read_asset": _read_asset}
    environment.filters["png_uri"] = _png_uri
    # The filter `tojson` also escapes <, > and &, so JSON can neither end its script element nor
    # open a comment in it.
    environment.policies["json.dumps_function"] = _dump_json
    environment.policies["json.dumps_kwargs"] = {}
    return environment


def _read_asset(name: str) -> str:
    """Read a style sheet or script; its text is not rendered as a template."""
    return _ENVIRONMENT.loader.get_source(_ENVIRONMENT, name)[0]


def _png_uri(image: Image.Image | bytes) -> str:
    """Return the data URI of an image, or of the bytes of a PNG file."""
    if isinstance(image, Image.Image):
        file = io.BytesIO()
        image.save(file, "PNG")
        image = file.getvalue()
    return f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}"


def _dump_json(data: Any) -> str:  # noqa: ANN401 - any value that json supports
    """Encode compact JSON without the two line separators that JavaScript does not accept."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


_ENVIRONMENT = _make_environment()
