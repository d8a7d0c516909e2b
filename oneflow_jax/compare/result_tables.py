"""The tables of a comparison: the seed's two, all figures, latency and roofline."""

from collections.abc import Iterator, Sequence

from oneflow_jax.compare import metrics
from oneflow_jax.compare.results import ComparisonResult, Estimate, ModelResult
from oneflow_jax.compare.tables import Cell, Table

NOT_MEASURED = "not measured"


def make_tables(comparison: ComparisonResult) -> list[Table]:
    """All of them, in the order of the page."""
    return [
        make_model_table(comparison),
        make_family_table(comparison),
        make_metrics_table(comparison),
        *make_cost_tables(comparison),
    ]


def make_model_table(comparison: ComparisonResult) -> Table:
    """The seed's first table: model, generation mode, image distance, quality, passes."""
    shown = [metrics.get(name) for name in ("kid", "fd", "interleaved", "passes")]
    distances = dict.fromkeys(("kid", "fd"), f" of {comparison.pictures:,} pictures")
    stars = {merit.name: _best_marks(comparison, merit) for merit in shown}
    return Table(
        "Models",
        (
            "Model",
            "Generation mode",
            *(merit.headline(distances.get(merit.name, "")) for merit in shown),
        ),
        [
            (
                Cell(one.title),
                Cell(one.mode),
                *(_make_model_cell(one, merit, stars[merit.name]) for merit in shown),
            )
            for one in comparison.contestants
        ],
    )


def make_family_table(comparison: ComparisonResult) -> Table:
    """The seed's second table: generation paradigm, models, speed, interleaved quality."""
    passes, seconds, quality = map(metrics.get, ("passes", "seconds_per_document", "interleaved"))
    stars = _best_marks(comparison, quality)
    rows = []
    for family, members in _group_by_family(comparison.contestants):
        speed, time = _format_range(members, passes), _format_range(members, seconds)
        mark = next((m for m in ("best", "tied") if m in {stars.get(o.name) for o in members}), "")
        rows.append(
            (
                Cell(family),
                Cell(", ".join(one.title for one in members)),
                Cell(f"{speed} passes" if speed else "–", f"{time} s a document" if time else ""),
                Cell(_format_range(members, quality) or "–", mark=mark),
            )
        )
    return Table("Paradigms", ("Paradigm", "Models", "Speed", quality.headline()), rows)


def make_metrics_table(comparison: ComparisonResult) -> Table:
    """Every figure with its interval: a row each, a column for each paradigm and each bound."""
    every = comparison.contestants
    measured = [one.figures for one in every] + list(comparison.bounds.values())
    rows = []
    for merit in metrics.select({name for figures in measured for name in figures}):
        stars = _best_marks(comparison, merit)
        rows.append(
            (
                Cell(merit.headline()),
                *(_make_model_cell(one, merit, stars) for one in every),
                *(
                    _make_cell(bound[merit.name], merit) if merit.name in bound else Cell("")
                    for bound in comparison.bounds.values()
                ),
            )
        )
    columns = ("", *(one.title for one in every), *comparison.bounds)
    return Table("All figures with 95 % intervals", columns, rows)


def make_cost_tables(comparison: ComparisonResult) -> Iterator[Table]:
    """Latency by size of the batch, and the roofline's tables; none that has no rows."""
    if comparison.latency:
        yield _make_latency_table(comparison)
    for title, (columns, *rows) in comparison.roofline.items():
        yield Table(title, columns, [[Cell(text) for text in row] for row in rows])


def _make_latency_table(comparison: ComparisonResult) -> Table:
    merit = metrics.MetricInfo("latency", "seconds", "↓", "", metrics.format_significant)
    batches = sorted({row.batch for row in comparison.latency})
    titles = dict.fromkeys(row.title for row in comparison.latency)
    found = {batch: {} for batch in batches}
    for row in comparison.latency:
        found[row.batch][row.title] = row.seconds
    stars = {batch: metrics.best_marks(merit, found[batch]) for batch in batches}
    return Table(
        "Latency",
        ("Seconds until all documents are done ↓", *(f"batch {batch}" for batch in batches)),
        [
            (
                Cell(title),
                *(
                    _make_cell(
                        found[batch].get(title), merit, stars[batch].get(title, ""), NOT_MEASURED
                    )
                    for batch in batches
                ),
            )
            for title in titles
        ],
    )


def _best_marks(
    comparison: ComparisonResult, metric: metrics.MetricInfo
) -> dict[str, metrics.Mark]:
    """The marks of a merit by the names of the contestants that have it."""
    every = {one.name: one.figures.get(metric.name) for one in comparison.contestants}
    return metrics.best_marks(metric, {name: figure for name, figure in every.items() if figure})


def _make_model_cell(
    model: ModelResult, metric: metrics.MetricInfo, marks: dict[str, metrics.Mark]
) -> Cell:
    """What a contestant reached, or why it did not."""
    why = f"{model.title}: {model.absent.get(metric.name, NOT_MEASURED)}"
    return _make_cell(model.figures.get(metric.name), metric, marks.get(model.name, ""), why)


def _make_cell(
    estimate: Estimate | None, metric: metrics.MetricInfo, mark: metrics.Mark = "", reason: str = ""
) -> Cell:
    if estimate is None:
        return Cell("–", note=reason)
    return Cell(
        metric.format_value(estimate.value), metric.interval(estimate), mark, estimate.value
    )


def _group_by_family(models: Sequence[ModelResult]) -> list[tuple[str, list[ModelResult]]]:
    """Contestants by family, both in the order in which they come."""
    names = dict.fromkeys(one.family for one in models)
    return [(name, [one for one in models if one.family == name]) for name in names]


def _format_range(models: Sequence[ModelResult], metric: metrics.MetricInfo) -> str:
    """From the least to the greatest of the members' values; nothing if there is none."""
    values = [one.figures[metric.name].value for one in models if metric.name in one.figures]
    return metric.range(min(values), max(values)) if values else ""
