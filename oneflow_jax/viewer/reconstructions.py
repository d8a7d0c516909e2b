"""One self-contained HTML page of a codec: originals beside what comes back, and the figures."""

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from oneflow_jax.viewer import page

SIDE = 128
"""Pixels to which smaller pictures are enlarged, by whole factors, before they are stored: about as
large as the page shows them, so that their pixels are squares of one size."""

THREE = ("original", "rebuilt", "difference")


def write(
    path: str | os.PathLike[str],
    *,
    originals: UInt8[np.ndarray, "n H W 3"],
    rebuilt: UInt8[np.ndarray, "n H W 3"],
    captions: Sequence[str],
    columns: Sequence[str],
    figures: Mapping[str, Sequence[str]],
    axis: str,
    curves: Mapping[str, page.Curve],
    settings: Mapping[str, str],
    heading: str,
    lede: str,
    notes: Sequence[str] = (),
) -> None:
    """Writes the page to `path`; its folder is made if need be.

    Args:
        path: where the HTML file goes.
        originals: pictures that were encoded.
        rebuilt: the same, decoded; the page also shows how they differ.
        captions: a line for each.
        columns: whose figures there are.
        figures: what was measured, by name, as people read it: of each column, or of the first.
        axis: what the curves are of.
        curves: what was measured in training, by name.
        settings: the run's settings by name.
        heading: what the page is about.
        lede: a sentence below it.
        notes: lines for the foot of the page.
    """
    rows = zip(originals, rebuilt, captions, strict=True)
    page.fill(
        path,
        "gallery.html",
        styles=("page.css", "gallery.css"),
        scripts=("elements.js", "chart.js", "gallery.js"),
        data={
            "axis": axis,
            "curves": [page.curve(name, curve) for name, curve in curves.items()],
        },
        fields={
            "heading": html.escape(heading),
            "lede": html.escape(lede),
            "pictures": "".join(_row(*row) for row in rows),
            "columns": "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in columns),
            "figures": "".join(
                _figure(name, *row, *[""] * (len(columns) - len(row)))
                for name, row in figures.items()
            ),
            "settings": "".join(map(page.setting, settings.items())),
            "notes": "".join(f"<p>{html.escape(note)}</p>" for note in notes),
        },
    )


def _row(original: np.ndarray, rebuilt: np.ndarray, caption: str) -> str:
    """Original, reconstruction, and difference around grey; the caption is a line."""
    difference = np.clip(rebuilt.astype(int) - original + 128, 0, 255).astype(np.uint8)
    three = zip(THREE, (original, rebuilt, difference), strict=True)
    images = "".join(
        f"<img src='{_uri(pixels)}' alt='{name}' title='{name}'>" for name, pixels in three
    )
    return f"<figure>{images}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _figure(name: str, *values: str) -> str:
    cells = "".join(f"<td>{html.escape(value)}</td>" for value in values)
    return f"<tr><th scope='row'>{html.escape(name)}</th>{cells}</tr>"


def _uri(pixels: np.ndarray) -> str:
    factor = max(1, SIDE // pixels.shape[1])
    file = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((factor, factor, 1), np.uint8))).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
