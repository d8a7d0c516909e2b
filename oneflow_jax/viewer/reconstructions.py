"""Writes the HTML page of a codec: original images, their reconstructions, and metrics."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from oneflow_jax.viewer import page, templates

DISPLAY_SIZE = 128
"""Images are enlarged by an integer factor, up to this width in pixels, before they are stored.

The page shows images at about this width, so that all pixels appear equally large.
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
        metrics: formatted values by name of the metric: one value per column, or fewer if only the
            first columns have the metric.
        ylabel: label of the y axis of the curves.
        curves: training curves by name.
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
    """Return the images of `PANEL_NAMES` by name; in the difference, a gray of 128 means 0."""
    difference = np.clip(reconstruction.astype(int) - original + 128, 0, 255).astype(np.uint8)
    panels = map(_enlarge, (original, reconstruction, difference))
    return dict(zip(PANEL_NAMES, panels, strict=True))


def _enlarge(pixels: np.ndarray) -> Image.Image:
    """Enlarge an image by an integer factor, up to `DISPLAY_SIZE`."""
    factor = max(1, DISPLAY_SIZE // pixels.shape[1])
    return Image.fromarray(np.kron(pixels, np.ones((factor, factor, 1), np.uint8)))
