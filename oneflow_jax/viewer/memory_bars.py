"""Bar chart of the memory of a chip, by category."""

import io
import itertools
import pathlib
from collections.abc import Mapping

from matplotlib import figure, patches

from oneflow_jax.viewer import fonts, plots

COLORS = (*plots.COLORS, "#c26f2d")
"""Colors of the memory categories."""

MIN_VISIBLE_FRACTION = 0.005
"""A category that is a smaller fraction of the longest bar is too small to be visible."""


def plot_bars(
    path: pathlib.Path,
    rows: Mapping[str, Mapping[str, float]],
    limits: Mapping[str, float | None],
    title: str,
) -> None:
    """Write a PNG with one bar per row, stacked by category, and a mark at the row's limit.

    Args:
      path: path of the PNG, in an existing folder.
      rows: GiB by row name and category.
      limits: available GiB by row name; None draws no mark.
      title: title at the top.
    """
    height = 1.7 + 0.42 * len(rows)
    drawn = figure.Figure(
        figsize=(8, height), dpi=200, facecolor=fonts.BACKGROUND_COLOR, layout="constrained"
    )
    axes = drawn.add_subplot(facecolor=fonts.BACKGROUND_COLOR)
    colors = dict(zip(_visible_categories(rows), itertools.cycle(COLORS), strict=False))
    for place, (name, row) in enumerate(rows.items()):
        left = 0.0
        for category, size in row.items():
            axes.barh(place, size, left=left, height=0.62, color=colors.get(category))
            left += size
        axes.text(left, place, f" {left:.1f}", va="center", color=fonts.TEXT_COLOR)
        if limits[name] is not None:
            axes.vlines(
                limits[name], place - 0.42, place + 0.42, color=fonts.TEXT_COLOR, linewidth=2
            )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlabel("GiB per chip; the mark is the available memory", color=fonts.MUTED_COLOR)
    axes.set_title(title, loc="left", color=fonts.TEXT_COLOR, pad=14)
    axes.grid(axis="x", color=fonts.LINE_COLOR)
    axes.set_axisbelow(True)
    axes.tick_params(colors=fonts.MUTED_COLOR, length=0)
    axes.spines[:].set_visible(False)
    swatches = [patches.Patch(color=hue, label=name) for name, hue in colors.items()]
    drawn.legend(
        handles=swatches, loc="outside lower center", ncols=4, frameon=False,
        labelcolor=fonts.TEXT_COLOR,
    )  # fmt: skip
    png = io.BytesIO()
    drawn.savefig(png)
    path.write_bytes(png.getvalue())


def _visible_categories(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the categories that are large enough to be visible in some bar, for the legend."""
    longest = max(sum(row.values()) for row in rows.values())
    seen = (
        name
        for row in rows.values()
        for name, x in row.items()
        if x > MIN_VISIBLE_FRACTION * longest
    )
    return list(dict.fromkeys(seen))
