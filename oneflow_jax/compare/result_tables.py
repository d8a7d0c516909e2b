"""Builds the tables of a comparison: models, families, all metrics, latency and rooflines."""

from collections.abc import Iterator, Sequence

from oneflow_jax.compare import metrics
from oneflow_jax.compare.results import ComparisonResult, Estimate, ModelResult
from oneflow_jax.compare.tables import Cell, Table

NOT_MEASURED = "not measured"


def make_tables(comparison: ComparisonResult) -> list[Table]:
    """Return all tables, in the order of the page."""
    return [
        make_model_table(comparison),
        make_family_table(comparison),
        make_metrics_table(comparison),
        *make_cost_tables(comparison),
    ]


def make_model_table(comparison: ComparisonResult) -> Table:
    """Make the table of models: generation mode, image distances, quality, forward passes."""
    columns = [
        metrics.get(name)
        for name in ("kid_efficientnet", "fd_efficientnet", "interleaved_score", "nfe")
    ]
    distances = dict.fromkeys(
        ("kid_efficientnet", "fd_efficientnet"), f" of {comparison.num_images:,} images"
    )
    stars = {merit.name: _best_marks(comparison, merit) for merit in columns}
    return Table(
        "Models",
        (
            "Model",
            "Generation mode",
            *(merit.heading(distances.get(merit.name, "")) for merit in columns),
        ),
        [
            (
                Cell(one.title),
                Cell(one.mode),
                *(_make_model_cell(one, merit, stars[merit.name]) for merit in columns),
            )
            for one in comparison.models
        ],
    )


def make_family_table(comparison: ComparisonResult) -> Table:
    """Make the table of families of paradigms: their models, speed and interleaved quality."""
    passes, seconds, quality = map(
        metrics.get, ("nfe", "seconds_per_document", "interleaved_score")
    )
    stars = _best_marks(comparison, quality)
    rows = []
    for family, members in _group_by_family(comparison.models):
        speed, time = _format_range(members, passes), _format_range(members, seconds)
        mark = next((m for m in ("best", "tied") if m in {stars.get(o.name) for o in members}), "")
        rows.append(
            (
                Cell(family),
                Cell(", ".join(one.title for one in members)),
                Cell(
                    f"{speed} forward passes" if speed else "–",
                    f"{time} s per document" if time else "",
                ),
                Cell(_format_range(members, quality) or "–", mark=mark),
            )
        )
    return Table("Paradigms", ("Paradigm", "Models", "Speed", quality.heading()), rows)


def make_metrics_table(comparison: ComparisonResult) -> Table:
    """Make the table of all metrics: one row per metric, one column per model or bound."""
    models = comparison.models
    measured = [one.metrics for one in models] + list(comparison.reference_bounds.values())
    rows = []
    for merit in metrics.select({name for figures in measured for name in figures}):
        stars = _best_marks(comparison, merit)
        rows.append(
            (
                Cell(merit.heading()),
                *(_make_model_cell(one, merit, stars) for one in models),
                *(
                    _make_cell(bound[merit.name], merit) if merit.name in bound else Cell("")
                    for bound in comparison.reference_bounds.values()
                ),
            )
        )
    columns = ("", *(one.title for one in models), *comparison.reference_bounds)
    return Table("All metrics with 95 % intervals", columns, rows)


def make_cost_tables(comparison: ComparisonResult) -> Iterator[Table]:
    """Yield the table of measured latency, if any, and the tables of roofline estimates."""
    if comparison.latency:
        yield _make_latency_table(comparison)
    for title, (columns, *rows) in comparison.roofline.items():
        yield Table(title, columns, [[Cell(text) for text in row] for row in rows])


def _make_latency_table(comparison: ComparisonResult) -> Table:
    merit = metrics.MetricInfo("latency", "seconds", "↓", "", metrics.format_significant)
    batches = sorted({row.batch_size for row in comparison.latency})
    titles = dict.fromkeys(row.title for row in comparison.latency)
    seconds = {batch: {} for batch in batches}
    for row in comparison.latency:
        seconds[row.batch_size][row.title] = row.seconds
    stars = {batch: metrics.best_marks(merit, seconds[batch]) for batch in batches}
    return Table(
        "Latency",
        ("Seconds per batch ↓", *(f"batch size {batch}" for batch in batches)),
        [
            (
                Cell(title),
                *(
                    _make_cell(
                        seconds[batch].get(title), merit, stars[batch].get(title, ""), NOT_MEASURED
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
    """Return the mark of each model that has the metric, by the model's name."""
    estimates = {one.name: one.metrics.get(metric.name) for one in comparison.models}
    return metrics.best_marks(
        metric, {name: figure for name, figure in estimates.items() if figure}
    )


def _make_model_cell(
    model: ModelResult, metric: metrics.MetricInfo, marks: dict[str, metrics.Mark]
) -> Cell:
    """Make the cell of a model's metric, or a dash with the reason why the metric is missing."""
    why = f"{model.title}: {model.absence_reasons.get(metric.name, NOT_MEASURED)}"
    return _make_cell(model.metrics.get(metric.name), metric, marks.get(model.name, ""), why)


def _make_cell(
    estimate: Estimate | None, metric: metrics.MetricInfo, mark: metrics.Mark = "", reason: str = ""
) -> Cell:
    if estimate is None:
        return Cell("–", note=reason)
    return Cell(
        metric.format_value(estimate.value), metric.format_interval(estimate), mark, estimate.value
    )


def _group_by_family(models: Sequence[ModelResult]) -> list[tuple[str, list[ModelResult]]]:
    """Group models by family, in order of first appearance."""
    names = dict.fromkeys(one.family for one in models)
    return [(name, [one for one in models if one.family == name]) for name in names]


def _format_range(models: Sequence[ModelResult], metric: metrics.MetricInfo) -> str:
    """Format the range of the models' values; return "" if no model has the metric."""
    values = [one.metrics[metric.name].value for one in models if metric.name in one.metrics]
    return metric.format_range(min(values), max(values)) if values else ""
