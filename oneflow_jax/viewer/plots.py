"""Line plots as PNG, for example of quality against the number of forward passes."""

import io
import os
from collections.abc import Mapping, Sequence

from etils import epath

from oneflow_jax.viewer import fonts

MAX_XTICKS = 9
"""Maximum number of distinct x values that all get a tick; for more values, ticks are round."""

COLORS = (
    fonts.ACCENT_COLOR,
    fonts.GIVEN_COLOR,
    "#4a4fa8",
    "#8a6d00",
    "#973a74",
    "#5f6b57",
    fonts.TEXT_COLOR,
)


def plot_lines(
    path: str | os.PathLike[str],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    xlabel: str = "forward passes",
    ylabel: str = "quality",
) -> None:
    """Write a line plot with a log2 x axis.

    Args:
      path: path of the PNG; its folder is created if necessary.
      curves: (x, y) points by name, in order of x; every x is positive.
      title: title at the top.
      xlabel: label of the x axis.
      ylabel: label of the y axis.
    """
    from matplotlib import figure, ticker  # A slow import, which most commands do not need.

    drawn = figure.Figure(
        figsize=(8, 4.6), dpi=200, facecolor=fonts.BACKGROUND_COLOR, layout="constrained"
    )
    axes = drawn.add_subplot(facecolor=fonts.BACKGROUND_COLOR)
    for number, (name, points) in enumerate(curves.items()):
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            marker="o" if number < len(COLORS) else "s",
            markersize=4.5,
            linewidth=1.8,
            color=COLORS[number % len(COLORS)],
            label=name,
        )
    axes.set_xscale("log", base=2)
    places = sorted({x for points in curves.values() for x, _ in points})
    if len(places) <= MAX_XTICKS:
        axes.set_xticks(places)
    else:
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(xlabel, color=fonts.MUTED_COLOR)
    axes.set_ylabel(ylabel, color=fonts.MUTED_COLOR)
    axes.set_title(title, loc="left", color=fonts.TEXT_COLOR, pad=14)
    axes.grid(axis="y", color=fonts.LINE_COLOR)
    axes.set_axisbelow(True)
    axes.tick_params(colors=fonts.MUTED_COLOR, length=0)
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, labelcolor=fonts.TEXT_COLOR)
    file = io.BytesIO()
    drawn.savefig(file, format="png")
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.getvalue())
