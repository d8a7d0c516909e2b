"""Line plots as PNG, such as quality against the number of forward passes."""

import io
import os
from collections.abc import Mapping, Sequence

from etils import epath
from matplotlib import figure, ticker

from oneflow_jax.viewer import fonts

PLACES = 9
"""So many different x are all written down; of more, round numbers."""

HUES = (fonts.ACCENT, fonts.GIVEN, "#4a4fa8", "#8a6d00", "#973a74", "#5f6b57", fonts.INK)


def lines(
    path: str | os.PathLike[str],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    across: str = "forward passes",
    up: str = "quality",
) -> None:
    """Writes a plot of (x, y) points joined by lines; x is drawn on a scale of doublings.

    Args:
      path: where the PNG goes; its folder is made if need be.
      curves: points by name, in order of x; every x is positive.
      title: a line at the top.
      across: label of the x axis.
      up: label of the y axis.
    """
    drawn = figure.Figure(figsize=(8, 4.6), dpi=200, facecolor=fonts.PAPER, layout="constrained")
    axes = drawn.add_subplot(facecolor=fonts.PAPER)
    for number, (name, points) in enumerate(curves.items()):
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            marker="o" if number < len(HUES) else "s",
            markersize=4.5,
            linewidth=1.8,
            color=HUES[number % len(HUES)],
            label=name,
        )
    axes.set_xscale("log", base=2)
    places = sorted({x for points in curves.values() for x, _ in points})
    if len(places) <= PLACES:
        axes.set_xticks(places)
    else:
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(across, color=fonts.MUTED)
    axes.set_ylabel(up, color=fonts.MUTED)
    axes.set_title(title, loc="left", color=fonts.INK, pad=14)
    axes.grid(axis="y", color=fonts.LINE)
    axes.set_axisbelow(True)
    axes.tick_params(colors=fonts.MUTED, length=0)
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, labelcolor=fonts.INK)
    file = io.BytesIO()
    drawn.savefig(file, format="png")
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.getvalue())
