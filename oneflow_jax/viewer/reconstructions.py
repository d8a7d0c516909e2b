"""Writes the HTML page of a codec: originals beside their reconstructions, and metrics."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from oneflow_jax.viewer import page, templates

DISPLAY_SIZE = 128
"""Width in pixels up to which images are enlarged, by an integer factor, before they are stored.

It is about the width at which the page shows them, so that all pixels appear equally large.
"""

PANEL_NAMES = ("original", "reconstruction", "difference")


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
    """Write the page to `path`, and create its folder if necessary.

    Args:
        path: path of the HTML file.
        originals: original images.
        reconstructions: reconstruction of each image; the page also shows the difference.
        captions: caption of each image.
        columns: titles of the columns of metrics.
        metrics: formatted values by name of the metric: one for each column, or fewer for the
            first columns only.
        ylabel: label of the y axis of the curves.
        curves: curves of the training by name.
        settings: settings of the run, by name.
        heading: title of the page.
        intro: sentence below the title.
        notes: lines in the footer.
    """
    rows = zip(originals, reconstructions, captions, strict=True)
    templates.write_page(
        path,
        "gallery.html",
        data={
            "axis": ylabel,
            "curves": [page.serialize_curve(name, curve) for name, curve in curves.items()],
        },
        heading=heading,
        intro=intro,
        figures=[(caption, _make_panels(*images)) for *images, caption in rows],
        columns=columns,
        metrics={
            name: [*values, *[""] * (len(columns) - len(values))]
            for name, values in metrics.items()
        },
        settings=settings,
        notes=notes,
    )


def _make_panels(original: np.ndarray, reconstruction: np.ndarray) -> dict[str, Image.Image]:
    """Return the original, the reconstruction and their difference, where gray is 0, by name."""
    difference = np.clip(reconstruction.astype(int) - original + 128, 0, 255).astype(np.uint8)
    panels = map(_enlarge, (original, reconstruction, difference))
    return dict(zip(PANEL_NAMES, panels, strict=True))


def _enlarge(pixels: np.ndarray) -> Image.Image:
    """Enlarge an image by an integer factor, up to `DISPLAY_SIZE`."""
    factor = max(1, DISPLAY_SIZE // pixels.shape[1])
    return Image.fromarray(np.kron(pixels, np.ones((factor, factor, 1), np.uint8)))
