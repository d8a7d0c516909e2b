"""What fills the memory of a chip, as bars."""

import io
import itertools
import pathlib
from collections.abc import Mapping

from matplotlib import figure, patches

from oneflow_jax.viewer import fonts, plots

COLORS = (*plots.COLORS, "#c26f2d")
"""One for each category that compiling tells of."""

MIN_VISIBLE_FRACTION = 0.005
"""Share of the longest bar below which nothing would be seen of a category."""


def plot_bars(
    path: pathlib.Path,
    rows: Mapping[str, Mapping[str, float]],
    limits: Mapping[str, float | None],
    title: str,
) -> None:
    """Writes a PNG with a bar for each row, made of its categories, and a mark at its limit.

    Args:
      path: where the PNG goes, in a folder that is there.
      rows: GiB by category, by the name of the row.
      limits: GiB that there are, by the same names; None draws no mark.
      title: a line at the top.
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
    axes.set_xlabel("GiB of each chip; the mark is what there is", color=fonts.MUTED_COLOR)
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
    """The categories of which something can be seen in any of the bars."""
    longest = max(sum(row.values()) for row in rows.values())
    seen = (
        name
        for row in rows.values()
        for name, x in row.items()
        if x > MIN_VISIBLE_FRACTION * longest
    )
    return list(dict.fromkeys(seen))
