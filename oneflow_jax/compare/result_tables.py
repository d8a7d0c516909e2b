"""The tables of a comparison: the seed's two, all figures, latency and roofline."""

from collections.abc import Iterator, Sequence

from oneflow_jax.compare import metrics
from oneflow_jax.compare.results import Comparison, Contestant, Figure
from oneflow_jax.compare.tables import Cell, Table

UNMEASURED = "not measured"


def tables(comparison: Comparison) -> list[Table]:
    """All of them, in the order of the page."""
    return [
        by_model(comparison),
        by_family(comparison),
        everything(comparison),
        *costs(comparison),
    ]


def by_model(comparison: Comparison) -> Table:
    """The seed's first table: model, generation mode, image distance, quality, passes."""
    shown = [metrics.called(name) for name in ("kid", "fd", "interleaved", "passes")]
    distances = dict.fromkeys(("kid", "fd"), f" of {comparison.pictures:,} pictures")
    stars = {merit.name: _stars(comparison, merit) for merit in shown}
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
                *(_measured(one, merit, stars[merit.name]) for merit in shown),
            )
            for one in comparison.contestants
        ],
    )


def by_family(comparison: Comparison) -> Table:
    """The seed's second table: generation paradigm, models, speed, interleaved quality."""
    passes, seconds, quality = map(
        metrics.called, ("passes", "seconds_per_document", "interleaved")
    )
    stars = _stars(comparison, quality)
    rows = []
    for family, members in _families(comparison.contestants):
        speed, time = _range(members, passes), _range(members, seconds)
        mark = next((m for m in ("best", "tied") if m in {stars.get(o.name) for o in members}), "")
        rows.append(
            (
                Cell(family),
                Cell(", ".join(one.title for one in members)),
                Cell(f"{speed} passes" if speed else "–", f"{time} s a document" if time else ""),
                Cell(_range(members, quality) or "–", mark=mark),
            )
        )
    return Table("Paradigms", ("Paradigm", "Models", "Speed", quality.headline()), rows)


def everything(comparison: Comparison) -> Table:
    """Every figure with its interval: a row each, a column for each paradigm and each bound."""
    every = comparison.contestants
    measured = [one.figures for one in every] + list(comparison.bounds.values())
    rows = []
    for merit in metrics.listed({name for figures in measured for name in figures}):
        stars = _stars(comparison, merit)
        rows.append(
            (
                Cell(merit.headline()),
                *(_measured(one, merit, stars) for one in every),
                *(
                    _cell(bound[merit.name], merit) if merit.name in bound else Cell("")
                    for bound in comparison.bounds.values()
                ),
            )
        )
    columns = ("", *(one.title for one in every), *comparison.bounds)
    return Table("All figures with 95 % intervals", columns, rows)


def costs(comparison: Comparison) -> Iterator[Table]:
    """Latency by size of the batch, and the roofline's tables; none that has no rows."""
    if comparison.latency:
        yield _latency(comparison)
    for title, (columns, *rows) in comparison.roofline.items():
        yield Table(title, columns, [[Cell(text) for text in row] for row in rows])


def _latency(comparison: Comparison) -> Table:
    merit = metrics.Merit("latency", "seconds", "↓", "", metrics.digits)
    batches = sorted({row.batch for row in comparison.latency})
    titles = dict.fromkeys(row.title for row in comparison.latency)
    found = {batch: {} for batch in batches}
    for row in comparison.latency:
        found[row.batch][row.title] = row.seconds
    stars = {batch: metrics.marks(merit, found[batch]) for batch in batches}
    return Table(
        "Latency",
        ("Seconds until all documents are done ↓", *(f"batch {batch}" for batch in batches)),
        [
            (
                Cell(title),
                *(
                    _cell(found[batch].get(title), merit, stars[batch].get(title, ""), UNMEASURED)
                    for batch in batches
                ),
            )
            for title in titles
        ],
    )


def _stars(comparison: Comparison, merit: metrics.Merit) -> dict[str, metrics.Mark]:
    """The marks of a merit by the names of the contestants that have it."""
    every = {one.name: one.figures.get(merit.name) for one in comparison.contestants}
    return metrics.marks(merit, {name: figure for name, figure in every.items() if figure})


def _measured(one: Contestant, merit: metrics.Merit, stars: dict[str, metrics.Mark]) -> Cell:
    """What a contestant reached, or why it did not."""
    why = f"{one.title}: {one.absent.get(merit.name, UNMEASURED)}"
    return _cell(one.figures.get(merit.name), merit, stars.get(one.name, ""), why)


def _cell(
    figure: Figure | None, merit: metrics.Merit, mark: metrics.Mark = "", why: str = ""
) -> Cell:
    if figure is None:
        return Cell("–", note=why)
    return Cell(merit.written(figure.value), merit.interval(figure), mark, figure.value)


def _families(contestants: Sequence[Contestant]) -> list[tuple[str, list[Contestant]]]:
    """Contestants by family, both in the order in which they come."""
    names = dict.fromkeys(one.family for one in contestants)
    return [(name, [one for one in contestants if one.family == name]) for name in names]


def _range(members: Sequence[Contestant], merit: metrics.Merit) -> str:
    """From the least to the greatest of the members' values; nothing if there is none."""
    values = [one.figures[merit.name].value for one in members if merit.name in one.figures]
    return merit.range(min(values), max(values)) if values else ""
