"""Overview plot of a user's data: text lengths, images per document, and sample images."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure

from oneflow_jax.viewer import fonts

GRID_COLUMNS = 16
"""Number of images in a row of the grid."""

MIN_BARS = 4
"""Width of a bar chart, as a number of bars, so that a single bar does not fill it."""


def plot_overview(
    stats: Mapping[str, Any],
    images: Sequence[np.ndarray],
    colors: fonts.Palette = fonts.LIGHT,
) -> bytes:
    """Plot histograms of words and images per document, and images (uint8 `[h w 3]`), as PNG."""
    drawn = figure.Figure(
        figsize=(11, 7), dpi=120, facecolor=colors.background, layout="constrained"
    )
    top, bottom = drawn.subfigures(2, 1, height_ratios=(1, 1.25))
    left, right = top.subplots(1, 2)
    top.set_facecolor(colors.background)
    bottom.set_facecolor(colors.background)
    lengths = {_bin_label(int(n)): count for n, count in _sort_bins(stats["lengths"])}
    _bar_chart(left, lengths, "words per document", colors)
    _bar_chart(right, dict(_sort_bins(stats["shown"])), "images per document", colors)
    axes = bottom.subplots()
    axes.axis("off")
    if images:
        axes.imshow(_image_grid(images, colors), interpolation="nearest")
        axes.set_anchor("NW")
    axes.set_title("stored images", loc="left", color=colors.text)
    file = io.BytesIO()
    # The images fill only a part of their half if there are few.
    drawn.savefig(file, format="png", metadata={"Software": None}, bbox_inches="tight")
    return file.getvalue()


def _sort_bins(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: int(pair[0]))


def _bin_label(bits: int) -> str:
    """Return, as text, the range of numbers that have `bits` binary digits: "4-7" for 3."""
    first, last = 2 ** max(bits - 1, 0) * min(bits, 1), 2**bits - 1
    return str(first) if first == last else f"{first}-{last}"


def _bar_chart(
    axes: Any,  # noqa: ANN401 - of matplotlib
    counts: Mapping[str, int],
    title: str,
    colors: fonts.Palette,
) -> None:
    axes.set_facecolor(colors.background)
    axes.bar(range(len(counts)), list(counts.values()), color=colors.accent)
    axes.set_xlim(-0.8, max(len(counts), MIN_BARS) - 0.2)
    axes.set_xticks(range(len(counts)), list(counts))
    axes.set_title(title, loc="left", color=colors.text)
    axes.tick_params(axis="x", colors=colors.muted, length=0, rotation=60 if len(counts) > 8 else 0)
    axes.tick_params(axis="y", colors=colors.muted, length=0)
    axes.grid(axis="y", color=colors.line)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _image_grid(images: Sequence[np.ndarray], colors: fonts.Palette) -> np.ndarray:
    """Arrange images in a grid of cells that all of them fit, each image with a thin frame."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    gap, frame = max(1, height // 12), max(1, height // 48)
    cell = height + 2 * frame + gap, width + 2 * frame + gap
    columns = min(GRID_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    size = rows * cell[0], columns * cell[1], 3
    sheet = np.full(size, fonts.rgb(colors.background), np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        y, x = row * cell[0] + frame, column * cell[1] + frame
        bottom, right = y + image.shape[0], x + image.shape[1]
        sheet[y - frame : bottom + frame, x - frame : right + frame] = fonts.rgb(colors.line)
        sheet[y:bottom, x:right] = image
    return sheet
