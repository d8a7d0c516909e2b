"""Charts of metrics against cost, as SVG elements as wide as the page.

Horizontal positions are percentages of the width, so text keeps its size on a phone. Vertical
positions are pixels. Color and marker shape identify the model.
"""

import dataclasses
import html
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from oneflow_jax.compare import metrics
from oneflow_jax.compare.results import ComparisonResult, CurvePoint, Estimate

HEIGHT = 210
MARKER_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",  # circle
    "M-3.6-3.6h7.2v7.2h-7.2z",  # square
    "M0-5.2 5.2 0 0 5.2-5.2 0z",  # diamond
    "M0-5 4.8 3.6h-9.6z",  # triangle
    "M0 5 4.8-3.6h-9.6z",  # triangle upside down
    "M-1.6-5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z",  # plus
    "M0-5.4 1.5-1.9 5.3-1.6 2.4.8 3.3 4.5 0 2.5-3.3 4.5-2.4.8-5.3-1.6-1.5-1.9z",  # star
)
"""Marker shapes by index of the model; comparison.css has the colors in the same order."""

_OVERLAP_TOLERANCE = (
    1.0,
    3.0,
)  # Two markers overlap if they are closer than this % of the width and these pixels of height.
_MIN_LOG_SCALE_RATIO = 10  # The y axis is logarithmic if greatest / least value is above this.


@dataclasses.dataclass(frozen=True)
class AxisScale:
    """Maps values in [`low`, `high`] to [0, 1], linearly or logarithmically."""

    low: float
    high: float
    log: bool

    def __call__(self, value: float) -> float:
        """Return the position of a value on the axis, 0 to 1."""
        level, low, high = map(self._log_or_linear, (value, self.low, self.high))
        return (level - low) / (high - low)

    def _log_or_linear(self, value: float) -> float:
        return math.log(value) if self.log else value

    def ticks(self) -> list[float]:
        """Return about three to nine round numbers on the axis."""
        if not self.log:
            rough = (self.high - self.low) / 4
            unit = 10 ** math.floor(math.log10(rough))
            unit *= next(factor for factor in (1, 2, 5, 10) if factor * unit >= rough)
            first, last = math.ceil(self.low / unit - 1e-9), math.floor(self.high / unit + 1e-9)
            return [n * unit for n in range(first, last + 1)]
        decades = math.log10(self.high / self.low)
        factors = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3 else (1,)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [factor * 10.0**power for power in powers for factor in factors]
        return [at for at in values if self.low * 0.999 <= at <= self.high * 1.001]


def render_marker_defs() -> str:
    """Render the definitions of the markers `#mark0`, `#mark1`, ...; a page needs them once."""
    marks = (f"<path id='mark{n}' d='{shape}'/>" for n, shape in enumerate(MARKER_SHAPES))
    return f"<svg class='shapes' aria-hidden='true'><defs>{''.join(marks)}</defs></svg>"


def render_marker(index: int) -> str:
    """Render a model's marker for use in a line of text."""
    shape = f"<use href='#mark{index % len(MARKER_SHAPES)}'/>"
    return f"<svg class='mark' viewBox='-6 -6 12 12' aria-hidden='true'>{shape}</svg>"


def render_charts(comparison: ComparisonResult) -> str:
    """Render two charts for each metric that has curves: against forward passes and seconds."""
    names = {name for one in comparison.models for name in one.curves}
    return "".join(_render_chart_pair(comparison, merit) for merit in metrics.select(names))


def _render_chart_pair(comparison: ComparisonResult, metric: metrics.MetricInfo) -> str:
    curves = {
        at: one.curves[metric.name]
        for at, one in enumerate(comparison.models)
        if one.curves.get(metric.name)
    }
    titles = [one.title for one in comparison.models]
    bounds = {
        title: figures[metric.name]
        for title, figures in comparison.reference_bounds.items()
        if metric.name in figures
    }
    way = {"↑": "higher is better", "↓": "lower is better", "": ""}[metric.direction]
    drawn = "".join(
        _render_chart(metric, curves, titles, bounds, *axis)
        for axis in (
            ("forward passes", lambda point: point.nfe),
            ("seconds per document", lambda point: point.seconds),
        )
    )
    return (
        f"<figure class='pair'><figcaption><b>{html.escape(metric.heading())}</b> {way}"
        f"</figcaption>{drawn}</figure>"
    )


def _render_chart(
    metric: metrics.MetricInfo,
    curves: Mapping[int, Sequence[CurvePoint]],
    titles: Sequence[str],
    bounds: Mapping[str, Estimate],
    xlabel: str,
    cost: Callable[[CurvePoint], float],
) -> str:
    costs = [cost(point) for points in curves.values() for point in points]
    values = [point.value for points in curves.values() for point in points]
    across = _pad_range(min(costs), max(costs))
    up = _y_scale(values, [figure.value for figure in bounds.values()])
    places = {
        at: [(100 * across(cost(point)), HEIGHT * (1 - up(point.value))) for point in points]
        for at, points in curves.items()
    }
    description = " ".join(
        _describe_curve(titles[at], points, cost, metric) for at, points in curves.items()
    )
    label = html.escape(f"{metric.title} against {xlabel}. {description}", quote=True)
    return (
        f"<svg class='plot' role='img' height='{HEIGHT}' aria-label='{label}'>"
        f"{_render_grid(across, up, metric)}{_render_bounds(bounds, up)}"
        f"{''.join(_render_curve(at, places) for at in places)}"
        f"<text x='50%' y='{HEIGHT + 37}' text-anchor='middle'>{xlabel}</text></svg>"
    )


def _pad_range(low: float, high: float) -> AxisScale:
    """Return a logarithmic scale from `low` to `high`, with a margin at both ends."""
    room = max(1.08, (high / low) ** 0.04)
    return AxisScale(low / room, high * room, log=True)


def _y_scale(values: Sequence[float], bounds: Sequence[float]) -> AxisScale:
    """Choose the y scale: logarithmic if greatest / least value is large, else linear.

    A linear scale starts at 0 unless the least value is negative or above half of the greatest.
    """
    low, high = min([*values, *bounds]), max([*values, *bounds])
    if low > 0 and max(values) / min(values) > _MIN_LOG_SCALE_RATIO:
        return _pad_range(low, high)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return AxisScale(low - room if low > high / 2 or low < 0 else 0.0, high + room, log=False)


def _render_grid(x_scale: AxisScale, y_scale: AxisScale, metric: metrics.MetricInfo) -> str:
    drawn = []
    for value in y_scale.ticks():
        y = HEIGHT * (1 - y_scale(value))
        drawn.append(
            f"<line class='grid' x2='100%' y1='{y:.1f}' y2='{y:.1f}'/>"
            f"<text x='-8' y='{y:.1f}' dy='.32em' text-anchor='end'>{_format_tick(value)}</text>"
        )
    for value in x_scale.ticks():
        x = 100 * x_scale(value)
        drawn.append(
            f"<line class='tick' x1='{x:.2f}%' x2='{x:.2f}%' y1='{HEIGHT}' y2='{HEIGHT + 4}'/>"
            f"<text x='{x:.2f}%' y='{HEIGHT + 18}' "
            f"text-anchor='middle'>{_format_tick(value)}</text>"
        )
    return "".join(drawn)


def _format_tick(value: float) -> str:
    return f"{round(value, 12):,.10g}".replace("-", "−")


def _render_bounds(bounds: Mapping[str, Estimate], y_scale: AxisScale) -> str:
    """Render reference bounds as dashed lines; the first label is at the left, others at right."""
    drawn = []
    for number, (title, figure) in enumerate(bounds.items()):
        y = HEIGHT * (1 - y_scale(figure.value))
        x, anchor = ("100%", "end") if number else ("0", "start")
        drawn.append(
            f"<line class='bound' x2='100%' y1='{y:.1f}' y2='{y:.1f}'/>"
            f"<text class='name' x='{x}' y='{y - 5:.1f}' text-anchor='{anchor}'>"
            f"{html.escape(title)}</text>"
        )
    return "".join(drawn)


def _outline_style(
    index: int, x: float, y: float, positions: Mapping[int, Sequence[tuple[float, float]]]
) -> str:
    """Return the style of a marker: one rim for each later curve that has a marker on top of it."""
    covering = sum(
        any(
            abs(x - a) < _OVERLAP_TOLERANCE[0] and abs(y - b) < _OVERLAP_TOLERANCE[1]
            for a, b in points
        )
        for curve, points in positions.items()
        if curve > index
    )
    return f" style='--rim:{covering}'" if covering else ""


def _render_curve(index: int, positions: Mapping[int, Sequence[tuple[float, float]]]) -> str:
    """Render a curve with its markers; a covered marker has one rim for each covering curve."""
    steps = "".join(
        f"<line x1='{a:.2f}%' y1='{b:.1f}' x2='{c:.2f}%' y2='{d:.1f}'/>"
        for (a, b), (c, d) in itertools.pairwise(positions[index])
    )
    shape = index % len(MARKER_SHAPES)
    marks = "".join(
        f"<use href='#mark{shape}' x='{x:.2f}%' "
        f"y='{y:.1f}'{_outline_style(index, x, y, positions)}/>"
        for x, y in positions[index]
    )
    return f"<g class='curve who{shape}'>{steps}{marks}</g>"


def _describe_curve(
    title: str,
    points: Sequence[CurvePoint],
    cost: Callable[[CurvePoint], float],
    metric: metrics.MetricInfo,
) -> str:
    """Describe a curve in words, for screen readers."""
    ends = dict.fromkeys((points[0], points[-1]))
    values = (
        f"{metric.format_value(point.value)} at {metrics.format_significant(cost(point))}"
        for point in ends
    )
    return f"{title}: {' to '.join(values)}."
