"""Renders a comparison as one self-contained HTML page, and its tables as Markdown.

The page contains no scripts: charts and timelines are static SVG.
"""

import os
from typing import Any

import numpy as np

from oneflow_jax.compare import charts, metrics, result_tables, results, tables, timeline_chart
from oneflow_jax.data import document
from oneflow_jax.viewer import sprite_sheet, templates

Estimate = results.Estimate
CurvePoint = results.CurvePoint
TimelineBar = results.TimelineBar
Timeline = results.Timeline
ModelResult = results.ModelResult
LatencyResult = results.LatencyResult
ComparisonResult = results.ComparisonResult


def write(path: str | os.PathLike[str], comparison: ComparisonResult) -> None:
    """Write the page to `path`, and create its folder if necessary.

    Args:
        path: path of the HTML file.
        comparison: results to show; the page omits sections without content.
    """
    models = comparison.models
    templates.write_page(
        path,
        "comparison.html",
        heading=comparison.heading,
        intro=format_intro(comparison),
        marker_shapes=charts.render_marker_defs(),
        mark_symbols=tables.MARK_SYMBOLS,
        model_table=result_tables.make_model_table(comparison),
        family_table=result_tables.make_family_table(comparison),
        timelines=timeline_chart.render_timelines(models),
        models=[_describe_model(at, one) for at, one in enumerate(models)],
        curves=charts.render_charts(comparison),
        metric_table=result_tables.make_metrics_table(comparison),
        cost_tables=result_tables.make_cost_tables(comparison),
        notes=comparison.notes,
        settings=_collect_settings(comparison),
        definitions=_make_glossary(comparison),
        attribution=comparison.attribution,
    )


def render_markdown(comparison: ComparisonResult) -> str:
    """Render tables, notes and settings of the page as Markdown, without images and charts."""
    lines = [f"- {tables.escape_markdown(note)}" for note in comparison.notes]
    settings = [
        f"- {tables.escape_markdown(name)}: {tables.escape_markdown(value)}"
        for name, value in _collect_settings(comparison).items()
    ]
    parts = [
        tables.escape_markdown(format_intro(comparison)),
        *(tables.to_markdown(table).rstrip() for table in result_tables.make_tables(comparison)),
        *(["\n".join(lines)] if lines else []),
        "\n".join(settings),
    ]
    return "\n\n".join(parts) + "\n"


def format_intro(comparison: ComparisonResult) -> str:
    """Write the introduction: what was compared, and which model has the best quality."""
    many = len(comparison.models)
    intro = (
        f"Text and images from {many} {'paradigms' if many > 1 else 'paradigm'}, trained with "
        f"{metrics.format_scientific(comparison.flops_budget)} FLOPs each on the same documents. "
    )
    scored = {one.name: one for one in comparison.models if "interleaved_score" in one.metrics}
    merit, passes = metrics.get("interleaved_score"), metrics.get("nfe")
    quality = {name: one.metrics["interleaved_score"] for name, one in scored.items()}
    stars = metrics.best_marks(merit, quality)
    best = next((name for name in scored if stars[name] == "best"), None)
    if best is None:
        return intro.rstrip()
    intro += (
        f"Best interleaved quality: {scored[best].title}, {merit.format_value(quality[best].value)}"
    )
    if took := scored[best].metrics.get("nfe"):
        intro += f" in {passes.format_value(took.value)} forward passes"
    level = [one.title for one in scored.values() if stars[one.name] and one.name != best]
    return f"{intro}; its interval overlaps those of {', '.join(level)}." if level else f"{intro}."


def _describe_model(index: int, model: ModelResult) -> dict[str, Any]:
    """Describe a model for the template: title, marker and sample documents."""
    return {
        "title": model.title,
        "shape": index % len(charts.MARKER_SHAPES),
        "marker": charts.render_marker(index),
        "samples": [_describe_sample(sample) for sample in model.samples],
    }


def _describe_sample(sample: document.Document) -> list[str | dict[str, str]]:
    """List the text and images of a document in reading order; images have an alt text."""
    parts, count, total = [], 0, len(sample.images())
    for part in sample.parts:
        if isinstance(part, document.Text):
            parts.append(part.text)
        elif isinstance(part, document.Image):
            count += 1
            alt = f"Image {count} of {total} in: {sample.text()}"
            parts.append({"uri": _data_uri(part.pixels), "alt": alt})
        else:
            raise ValueError(f"samples: a finished document has only text and images, not {part}")
    return parts


def _data_uri(pixels: np.ndarray) -> str:
    """Return an image as a lossless data URI."""
    tiles = sprite_sheet.SpritePacker()
    tiles.add(pixels, None, lossless=True)
    (sheet,), _ = tiles.encode(0)
    return str(sheet["uri"])


def _collect_settings(comparison: ComparisonResult) -> dict[str, str]:
    """Return the settings of the measurements, data and machine, by name."""
    return {
        "budget": f"{metrics.format_scientific(comparison.flops_budget)} training FLOPs each",
        "seeds": ", ".join(map(str, comparison.seeds)),
        "image distances": f"{comparison.num_images:,} generated images",
        **{f"data: {name}": value for name, value in comparison.data.items()},
        **{f"machine: {name}": value for name, value in comparison.machine.items()},
    }


def _make_glossary(comparison: ComparisonResult) -> dict[str, str]:
    """Return the description of each metric that the comparison has, by the metric's title."""
    names = {name for one in comparison.models for name in (*one.metrics, *one.curves)}
    meanings = {
        merit.title: comparison.definitions.get(merit.name, merit.description)
        for merit in metrics.select(names)
    }
    return {title: meaning for title, meaning in meanings.items() if meaning}
