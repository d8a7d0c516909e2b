"""Chart of timelines: at which forward passes each model generates the parts of a document.

Positions of bars are percentages of the width, so labels keep their size on a phone.
"""

import html
from collections.abc import Sequence

from oneflow_jax.compare import charts, metrics
from oneflow_jax.compare.results import ModelResult, Timeline, TimelineBar

ROW_HEIGHT = 17  # Height of the row of a part, in pixels.
BAR_HEIGHT = 11
MAX_LABEL_LENGTH = 22  # In characters; about a third of a phone's width.
MIN_BAR_PERCENT = 0.4  # Minimum width: a bar of one forward pass must stay visible.


def render_timelines(models: Sequence[ModelResult]) -> str:
    """Render the timelines of all models, each on a shared axis and on an axis of its own."""
    recorded = [(at, one) for at, one in enumerate(models) if one.timeline]
    if not recorded:
        return ""
    longest = max(one.timeline.passes for _, one in recorded)
    axis = charts.AxisScale(0, longest, log=False)
    return (
        f"<div class='lane head'><p class='shared'>forward passes, shared axis</p>"
        f"<p class='own'>forward passes, scaled to full width</p>{_render_ticks(axis)}</div>"
        f"{''.join(_render_timeline(at, one.title, one.timeline, axis) for at, one in recorded)}"
        f"<div class='lane'>{_render_ticks(axis)}</div>"
    )


def _render_timeline(index: int, title: str, timeline: Timeline, axis: charts.AxisScale) -> str:
    own = charts.AxisScale(0, timeline.passes, log=False)
    took = (
        f"{metrics.format_count(timeline.passes)} passes, "
        f"{metrics.format_significant(timeline.seconds)} s"
    )
    description = " ".join(f"{part.label}: {_format_span(part)};" for part in timeline.parts)
    label = html.escape(f"{title}, {took}. {description}", quote=True)
    return (
        f"<figure class='lane who{index % len(charts.MARKER_SHAPES)}'>"
        f"<figcaption><b>{html.escape(title)}</b> {took}</figcaption>"
        f"{_render_bars(timeline.parts, axis, 'shared', label)}"
        f"{_render_bars(timeline.parts, own, 'own')}</figure>"
    )


def _format_span(part: TimelineBar) -> str:
    return f"{metrics.format_count(part.started)} to {metrics.format_count(part.finished)}"


def _render_bars(
    parts: Sequence[TimelineBar], axis: charts.AxisScale, css_class: str, label: str = ""
) -> str:
    """Render one row per part of a document; with `label` "", screen readers skip the chart."""
    known = f"role='img' aria-label='{label}'" if label else "aria-hidden='true'"
    places = (f"{100 * axis(value):.2f}%" for value in axis.ticks())
    grid = "".join(f"<line class='grid' x1='{x}' x2='{x}' y2='100%'/>" for x in places)
    rows = "".join(
        _render_bar(part, axis, ROW_HEIGHT * at, part.label if label else "")
        for at, part in enumerate(parts)
    )
    return f"<svg class='{css_class}' height='{ROW_HEIGHT * len(parts)}' {known}>{grid}{rows}</svg>"


def _render_bar(part: TimelineBar, axis: charts.AxisScale, top: int, label: str) -> str:
    """Render a bar; its label is after, before or on the bar, wherever there is most room."""
    start = 100 * axis(part.started)
    width = max(MIN_BAR_PERCENT, 100 * axis(part.finished) - start)
    start = min(start, 100 - width)
    bar = (
        f"<rect class='{part.kind}' x='{start:.2f}%' width='{width:.2f}%' y='{top + 3}' "
        f"height='{BAR_HEIGHT}' rx='2'/>"
    )
    if not label:
        return bar
    places = (
        (100 - start - width, "after", start + width, 5, "start"),
        (start, "before", start, -5, "end"),
        (width, "on", start, 6, "start"),
    )
    _, place, x, move, anchor = max(places)
    text = label if len(label) <= MAX_LABEL_LENGTH else f"{label[: MAX_LABEL_LENGTH - 1].rstrip()}…"
    return (
        f"{bar}<text class='{place}' x='{x:.2f}%' dx='{move}' y='{top + 3 + BAR_HEIGHT / 2}' "
        f"dy='.34em' text-anchor='{anchor}'>{html.escape(text)}</text>"
    )


def _render_ticks(axis: charts.AxisScale) -> str:
    """Render the tick labels of the shared axis; the first and last stay within the axis."""
    drawn = []
    for value in axis.ticks():
        share = axis(value)
        anchor = "start" if share < 0.03 else "end" if share > 0.97 else "middle"
        drawn.append(
            f"<text x='{100 * share:.2f}%' y='12' text-anchor='{anchor}'>"
            f"{metrics.format_count(value)}</text>"
        )
    return f"<svg class='shared axis' height='16' aria-hidden='true'>{''.join(drawn)}</svg>"
