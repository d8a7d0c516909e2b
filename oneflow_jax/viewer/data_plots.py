"""Own data at a glance: lengths, numbers of pictures, and some of the pictures."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure

from oneflow_jax.viewer import fonts

COLUMNS = 16
"""Pictures in a row of the sheet."""


def overview(figures: Mapping[str, Any], pictures: Sequence[np.ndarray]) -> bytes:
    """A PNG of two histograms, and of pictures that all have one size, uint8 `[n n 3]`."""
    drawn = figure.Figure(figsize=(11, 7), dpi=120, facecolor=fonts.PAPER, layout="constrained")
    top, bottom = drawn.subfigures(2, 1, height_ratios=(1, 1.25))
    left, right = top.subplots(1, 2)
    top.set_facecolor(fonts.PAPER)
    bottom.set_facecolor(fonts.PAPER)
    _bars(left, {_range(int(n)): c for n, c in _in_order(figures["lengths"])}, "words a document")
    _bars(right, dict(_in_order(figures["shown"])), "pictures a document")
    axes = bottom.subplots()
    axes.axis("off")
    if pictures:
        axes.imshow(_sheet(pictures), interpolation="nearest")
    axes.set_title("pictures as they are stored", loc="left", color=fonts.INK)
    file = io.BytesIO()
    drawn.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: int(pair[0]))


def _range(bits: int) -> str:
    """Of so many binary digits: 3 is 4-7."""
    first, last = 2 ** max(bits - 1, 0) * min(bits, 1), 2**bits - 1
    return str(first) if first == last else f"{first}-{last}"


def _bars(axes: Any, counts: Mapping[str, int], title: str) -> None:  # noqa: ANN401 - of matplotlib
    axes.set_facecolor(fonts.PAPER)
    axes.bar(range(len(counts)), list(counts.values()), color=fonts.ACCENT)
    axes.set_xticks(range(len(counts)), list(counts))
    axes.set_title(title, loc="left", color=fonts.INK)
    axes.tick_params(axis="x", colors=fonts.MUTED, length=0, rotation=60 if len(counts) > 8 else 0)
    axes.tick_params(axis="y", colors=fonts.MUTED, length=0)
    axes.grid(axis="y", color=fonts.LINE)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """All pictures in a grid with white between them."""
    size = pictures[0].shape[0]
    gap = max(1, size // 12)
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (size + gap), columns * (size + gap), 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        y, x = (part * (size + gap) for part in divmod(number, columns))
        sheet[y : y + size, x : x + size] = picture
    return sheet
