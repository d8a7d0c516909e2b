"""One self-contained HTML page, and markdown, of a comparison of paradigms.

The page needs no script: its charts and lanes are drawn here, and nothing waits for a pointer.
"""

import html
import os

import numpy as np

from oneflow_jax.compare import charts, metrics, result_tables, results, tables, timeline_chart
from oneflow_jax.data import document
from oneflow_jax.viewer import page, sprite_sheet

Estimate = results.Estimate
CurvePoint = results.CurvePoint
TimelineBar = results.TimelineBar
Timeline = results.Timeline
ModelResult = results.ModelResult
LatencyResult = results.LatencyResult
ComparisonResult = results.ComparisonResult


def write(path: str | os.PathLike[str], comparison: ComparisonResult) -> None:
    """Writes the page to `path`; its folder is made if need be.

    Args:
        path: where the HTML file goes.
        comparison: what it shows; parts of which there is nothing are left out.
    """
    every = comparison.contestants
    page.render_template(
        path,
        "comparison.html",
        styles=("page.css", "comparison.css"),
        scripts=(),
        data={},
        fields={
            "heading": html.escape(comparison.heading),
            "lede": html.escape(format_intro(comparison)),
            "shapes": charts.render_marker_defs(),
            "models": tables.to_html(result_tables.make_model_table(comparison)),
            "families": tables.to_html(result_tables.make_family_table(comparison)),
            "timelines": timeline_chart.render_timelines(every),
            "who": "".join(f"<li>{_model_label(at, one)}</li>" for at, one in enumerate(every)),
            "curves": charts.render_charts(comparison),
            "samples": "".join(
                _render_samples(at, one) for at, one in enumerate(every) if one.samples
            ),
            "figures": tables.to_html(result_tables.make_metrics_table(comparison)),
            "costs": "".join(
                f"<h3>{html.escape(table.title)}</h3>{tables.to_html(table)}"
                for table in result_tables.make_cost_tables(comparison)
            ),
            "notes": "".join(f"<li>{html.escape(note)}</li>" for note in comparison.notes),
            "settings": "".join(map(page.render_setting, _collect_settings(comparison).items())),
            "definitions": "".join(
                f"<dt>{html.escape(title)}</dt><dd>{html.escape(meaning)}</dd>"
                for title, meaning in _make_glossary(comparison).items()
            ),
            "attribution": "".join(
                f"<p>{html.escape(line)}</p>" for line in comparison.attribution
            ),
        },
    )


def render_markdown(comparison: ComparisonResult) -> str:
    """The tables of the page for documentation, and what stands around them, without pictures."""
    lines = [f"- {tables.escape_markdown(note)}" for note in comparison.notes]
    made = [
        f"- {tables.escape_markdown(name)}: {tables.escape_markdown(value)}"
        for name, value in _collect_settings(comparison).items()
    ]
    parts = [
        tables.escape_markdown(format_intro(comparison)),
        *(tables.to_markdown(table).rstrip() for table in result_tables.make_tables(comparison)),
        *(["\n".join(lines)] if lines else []),
        "\n".join(made),
    ]
    return "\n\n".join(parts) + "\n"


def format_intro(comparison: ComparisonResult) -> str:
    """What was compared, and who wrote the best interleaved documents in how many passes."""
    many = len(comparison.contestants)
    said = (
        f"What {many} {'paradigms make' if many > 1 else 'paradigm makes'} of words and pictures, "
        f"trained with {metrics.format_scientific(comparison.budget)} floating-point operations "
        "each on the "
        "same documents. "
    )
    scored = {one.name: one for one in comparison.contestants if "interleaved" in one.figures}
    merit, passes = metrics.get("interleaved"), metrics.get("passes")
    quality = {name: one.figures["interleaved"] for name, one in scored.items()}
    stars = metrics.best_marks(merit, quality)
    best = next((name for name in scored if stars[name] == "best"), None)
    if best is None:
        return said.rstrip()
    said += (
        f"Best interleaved quality: {scored[best].title}, {merit.format_value(quality[best].value)}"
    )
    if took := scored[best].figures.get("passes"):
        said += f" in {passes.format_value(took.value)} forward passes"
    level = [one.title for one in scored.values() if stars[one.name] and one.name != best]
    return f"{said}; intervals that overlap its own: {', '.join(level)}." if level else f"{said}."


def _model_label(index: int, model: ModelResult) -> str:
    """A contestant's mark and title."""
    shape = index % len(charts.MARKER_SHAPES)
    return (
        f"<span class='who{shape}'>{charts.render_marker(index)}</span>{html.escape(model.title)}"
    )


def _render_samples(index: int, model: ModelResult) -> str:
    """A contestant's documents."""
    shown = "".join(f"<article>{_render_document(sample)}</article>" for sample in model.samples)
    title = html.escape(model.title, quote=True)
    return (
        f"<div class='made'><h3>{_model_label(index, model)}</h3><div class='strip' role='region' "
        f"tabindex='0' aria-label='Documents of {title}'>{shown}</div></div>"
    )


def _render_document(sample: document.Document) -> str:
    """Words and pictures in reading order; a picture's alternative text is what stands around."""
    pieces, count, total = [], 0, len(sample.pictures())
    for part in sample.parts:
        if isinstance(part, document.Text):
            pieces.append(html.escape(part.text))
        elif isinstance(part, document.Image):
            count += 1
            alt = html.escape(f"Picture {count} of {total} in: {sample.words()}", quote=True)
            pieces.append(f"<img src='{_data_uri(part.pixels)}' alt='{alt}'>")
        else:
            raise ValueError(f"a finished document has words and pixels, not {part}")
    return " ".join(pieces)


def _data_uri(pixels: np.ndarray) -> str:
    """A picture as it is, as a data URI."""
    tiles = sprite_sheet.SpritePacker()
    tiles.place(pixels, None, exact=True)
    (sheet,), _ = tiles.encode(0)
    return str(sheet["uri"])


def _collect_settings(comparison: ComparisonResult) -> dict[str, str]:
    """What was measured on what, by name."""
    return {
        "budget": f"{metrics.format_scientific(comparison.budget)} training FLOPs each",
        "seeds": ", ".join(map(str, comparison.seeds)),
        "image distances": f"of {comparison.pictures:,} generated pictures",
        **{f"data: {name}": value for name, value in comparison.data.items()},
        **{f"machine: {name}": value for name, value in comparison.machine.items()},
    }


def _make_glossary(comparison: ComparisonResult) -> dict[str, str]:
    """What each figure of the comparison is, by title."""
    names = {name for one in comparison.contestants for name in (*one.figures, *one.curves)}
    meanings = {
        merit.title: comparison.definitions.get(merit.name, merit.meaning)
        for merit in metrics.select(names)
    }
    return {title: meaning for title, meaning in meanings.items() if meaning}
