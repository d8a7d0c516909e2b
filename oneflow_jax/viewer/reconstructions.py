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

DISPLAY_SIZE = 128
"""Pixels to which smaller pictures are enlarged, by whole factors, before they are stored: about as
large as the page shows them, so that their pixels are squares of one size."""

PANEL_NAMES = ("original", "rebuilt", "difference")


def write(
    path: str | os.PathLike[str],
    *,
    originals: UInt8[np.ndarray, "n H W 3"],
    reconstructions: UInt8[np.ndarray, "n H W 3"],
    captions: Sequence[str],
    columns: Sequence[str],
    metrics: Mapping[str, Sequence[str]],
    ylabel: str,
    curves: Mapping[str, page.Curve],
    settings: Mapping[str, str],
    heading: str,
    intro: str,
    notes: Sequence[str] = (),
) -> None:
    """Writes the page to `path`; its folder is made if need be.

    Args:
        path: where the HTML file goes.
        originals: pictures that were encoded.
        reconstructions: the same, decoded; the page also shows how they differ.
        captions: a line for each.
        columns: whose figures there are.
        metrics: what was measured, by name, as people read it: of each column, or of the first.
        ylabel: what the curves are of.
        curves: what was measured in training, by name.
        settings: the run's settings by name.
        heading: what the page is about.
        intro: a sentence below it.
        notes: lines for the foot of the page.
    """
    rows = zip(originals, reconstructions, captions, strict=True)
    page.render_template(
        path,
        "gallery.html",
        styles=("page.css", "gallery.css"),
        scripts=("elements.js", "chart.js", "gallery.js"),
        data={
            "axis": ylabel,
            "curves": [page.serialize_curve(name, curve) for name, curve in curves.items()],
        },
        fields={
            "heading": html.escape(heading),
            "lede": html.escape(intro),
            "pictures": "".join(_render_row(*row) for row in rows),
            "columns": "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in columns),
            "figures": "".join(
                _render_metric_row(name, *row, *[""] * (len(columns) - len(row)))
                for name, row in metrics.items()
            ),
            "settings": "".join(map(page.render_setting, settings.items())),
            "notes": "".join(f"<p>{html.escape(note)}</p>" for note in notes),
        },
    )


def _render_row(original: np.ndarray, reconstruction: np.ndarray, caption: str) -> str:
    """Original, reconstruction, and difference around grey; the caption is a line."""
    difference = np.clip(reconstruction.astype(int) - original + 128, 0, 255).astype(np.uint8)
    three = zip(PANEL_NAMES, (original, reconstruction, difference), strict=True)
    images = "".join(
        f"<img src='{_data_uri(pixels)}' alt='{name}' title='{name}'>" for name, pixels in three
    )
    return f"<figure>{images}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _render_metric_row(name: str, *values: str) -> str:
    cells = "".join(f"<td>{html.escape(value)}</td>" for value in values)
    return f"<tr><th scope='row'>{html.escape(name)}</th>{cells}</tr>"


def _data_uri(pixels: np.ndarray) -> str:
    factor = max(1, DISPLAY_SIZE // pixels.shape[1])
    file = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((factor, factor, 1), np.uint8))).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
