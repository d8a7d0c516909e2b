"""One self-contained HTML page, and markdown, of a comparison of paradigms.

The page needs no script: its charts and lanes are drawn here, and nothing waits for a pointer.
"""

import html
import os

import numpy as np

from oneflow_jax.compare import charts, metrics, result_tables, results, tables, timeline_chart
from oneflow_jax.data import document
from oneflow_jax.viewer import page, sprite_sheet

Figure = results.Figure
Point = results.Point
Bar = results.Bar
Timeline = results.Timeline
Contestant = results.Contestant
Latency = results.Latency
Comparison = results.Comparison


def write(path: str | os.PathLike[str], comparison: Comparison) -> None:
    """Writes the page to `path`; its folder is made if need be.

    Args:
        path: where the HTML file goes.
        comparison: what it shows; parts of which there is nothing are left out.
    """
    every = comparison.contestants
    page.fill(
        path,
        "comparison.html",
        styles=("page.css", "comparison.css"),
        scripts=(),
        data={},
        fields={
            "heading": html.escape(comparison.heading),
            "lede": html.escape(lede(comparison)),
            "shapes": charts.shapes(),
            "models": tables.as_html(result_tables.by_model(comparison)),
            "families": tables.as_html(result_tables.by_family(comparison)),
            "timelines": timeline_chart.lanes(every),
            "who": "".join(f"<li>{_who(at, one)}</li>" for at, one in enumerate(every)),
            "curves": charts.charts(comparison),
            "samples": "".join(_made(at, one) for at, one in enumerate(every) if one.samples),
            "figures": tables.as_html(result_tables.everything(comparison)),
            "costs": "".join(
                f"<h3>{html.escape(table.title)}</h3>{tables.as_html(table)}"
                for table in result_tables.costs(comparison)
            ),
            "notes": "".join(f"<li>{html.escape(note)}</li>" for note in comparison.notes),
            "settings": "".join(map(page.setting, _settings(comparison).items())),
            "definitions": "".join(
                f"<dt>{html.escape(title)}</dt><dd>{html.escape(meaning)}</dd>"
                for title, meaning in _definitions(comparison).items()
            ),
            "attribution": "".join(
                f"<p>{html.escape(line)}</p>" for line in comparison.attribution
            ),
        },
    )


def markdown(comparison: Comparison) -> str:
    """The tables of the page for documentation, and what stands around them, without pictures."""
    lines = [f"- {tables.plain(note)}" for note in comparison.notes]
    made = [
        f"- {tables.plain(name)}: {tables.plain(value)}"
        for name, value in _settings(comparison).items()
    ]
    parts = [
        tables.plain(lede(comparison)),
        *(tables.as_markdown(table).rstrip() for table in result_tables.tables(comparison)),
        *(["\n".join(lines)] if lines else []),
        "\n".join(made),
    ]
    return "\n\n".join(parts) + "\n"


def lede(comparison: Comparison) -> str:
    """What was compared, and who wrote the best interleaved documents in how many passes."""
    many = len(comparison.contestants)
    said = (
        f"What {many} {'paradigms make' if many > 1 else 'paradigm makes'} of words and pictures, "
        f"trained with {metrics.power(comparison.budget)} floating-point operations each on the "
        "same documents. "
    )
    scored = {one.name: one for one in comparison.contestants if "interleaved" in one.figures}
    merit, passes = metrics.called("interleaved"), metrics.called("passes")
    quality = {name: one.figures["interleaved"] for name, one in scored.items()}
    stars = metrics.marks(merit, quality)
    best = next((name for name in scored if stars[name] == "best"), None)
    if best is None:
        return said.rstrip()
    said += f"Best interleaved quality: {scored[best].title}, {merit.written(quality[best].value)}"
    if took := scored[best].figures.get("passes"):
        said += f" in {passes.written(took.value)} forward passes"
    level = [one.title for one in scored.values() if stars[one.name] and one.name != best]
    return f"{said}; intervals that overlap its own: {', '.join(level)}." if level else f"{said}."


def _who(number: int, one: Contestant) -> str:
    """A contestant's mark and title."""
    shape = number % len(charts.SHAPES)
    return f"<span class='who{shape}'>{charts.mark(number)}</span>{html.escape(one.title)}"


def _made(number: int, one: Contestant) -> str:
    """A contestant's documents."""
    shown = "".join(f"<article>{_document(sample)}</article>" for sample in one.samples)
    title = html.escape(one.title, quote=True)
    return (
        f"<div class='made'><h3>{_who(number, one)}</h3><div class='strip' role='region' "
        f"tabindex='0' aria-label='Documents of {title}'>{shown}</div></div>"
    )


def _document(sample: document.Document) -> str:
    """Words and pictures in reading order; a picture's alternative text is what stands around."""
    pieces, count, total = [], 0, len(sample.pictures())
    for part in sample.parts:
        if isinstance(part, document.Text):
            pieces.append(html.escape(part.text))
        elif isinstance(part, document.Image):
            count += 1
            alt = html.escape(f"Picture {count} of {total} in: {sample.words()}", quote=True)
            pieces.append(f"<img src='{_uri(part.pixels)}' alt='{alt}'>")
        else:
            raise ValueError(f"a finished document has words and pixels, not {part}")
    return " ".join(pieces)


def _uri(pixels: np.ndarray) -> str:
    """A picture as it is, as a data URI."""
    tiles = sprite_sheet.Atlas()
    tiles.place(pixels, None, exact=True)
    (sheet,), _ = tiles.packed(0)
    return str(sheet["uri"])


def _settings(comparison: Comparison) -> dict[str, str]:
    """What was measured on what, by name."""
    return {
        "budget": f"{metrics.power(comparison.budget)} FLOPs of training for each paradigm",
        "seeds": ", ".join(map(str, comparison.seeds)),
        "image distances": f"of {comparison.pictures:,} generated pictures",
        **{f"data: {name}": value for name, value in comparison.data.items()},
        **{f"machine: {name}": value for name, value in comparison.machine.items()},
    }


def _definitions(comparison: Comparison) -> dict[str, str]:
    """What each figure of the comparison is, by title."""
    names = {name for one in comparison.contestants for name in (*one.figures, *one.curves)}
    meanings = {
        merit.title: comparison.definitions.get(merit.name, merit.meaning)
        for merit in metrics.listed(names)
    }
    return {title: meaning for title, meaning in meanings.items() if meaning}
