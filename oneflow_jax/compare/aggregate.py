"""From the measures of all trainings to one comparison: seeds together, each figure's interval."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from oneflow_jax.compare import metrics, page
from oneflow_jax.compare.serialize import Measurement, RunMeasurements

NUM_RESAMPLES = 2_000

CURVE_METRICS = ("interleaved", "text_valid", "text_to_image", "kid", "fd")
"""Figures that are drawn against passes and seconds."""

SIGNIFICANT_DIGITS = 6
"""Of numbers in the JSON, so that what is the same reads the same."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a paradigm is called.

    Attributes:
        title: its name.
        family: of paradigms, as the second table has it.
        mode: how it generates, as the first table has it.
        absent: why it lacks a figure, by figure.
    """

    title: str
    family: str
    mode: str
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)


_AR, _HYBRID, _FLOW = "Sequential AR", "AR + flow", "Concurrent flow"

MODEL_INFO = {
    "chameleon": ModelInfo("Chameleon", _AR, "text and image codes, one after another"),
    "dalle": ModelInfo(
        "DALL-E",
        _AR,
        "all text, then image codes, one after another",
        dict.fromkeys(("image_to_text", "cider"), "its words come before its pictures"),
    ),
    "transfusion": ModelInfo(
        "Transfusion", _HYBRID, "text one token after another, then flow images"
    ),
    "lmfusion": ModelInfo("LMFusion", _HYBRID, "as Transfusion, beside a frozen text model"),
    "oneflow": ModelInfo(
        "OneFlow",
        _FLOW,
        "all at once, words as vectors",
        {"text_nats": "its words are points of a continuous flow, without a probability"},
    ),
    "mask_flow": ModelInfo("Mask Flow", _FLOW, "all at once, words unmasked"),
    "edit_flow": ModelInfo(
        "Edit Flow",
        _FLOW,
        "all at once, words and pictures inserted",
        {"text_nats": "no finite bound is known of its likelihood"},
    ),
}


def model_info(paradigm: str) -> ModelInfo:
    """What it is called: by its name, if it is none of these."""
    return MODEL_INFO.get(paradigm, ModelInfo(paradigm, paradigm, paradigm))


def aggregate_model(
    paradigm: str,
    measurements: Sequence[RunMeasurements],
    latency: Mapping[int, Sequence[tuple[float, int]]],
) -> page.ModelResult:
    """All that was measured of one paradigm.

    Args:
        paradigm: its name.
        measurements: its measures, seed by seed.
        latency: by batch size, (seconds, passes) of each batch that was timed.
    """
    about = model_info(paradigm)
    names = [
        figure
        for figure in measurements[0].figures
        if all(figure in one.figures for one in measurements)
    ]
    figures = {
        figure: aggregate_seeds([one.figures[figure] for one in measurements]) for figure in names
    }
    figures |= _latency_metrics(latency)
    return page.ModelResult(
        name=paradigm,
        title=about.title,
        family=about.family,
        mode=about.mode,
        figures=figures,
        absent=about.absent,
        curves={
            figure: _average_curves([one.curves[figure] for one in measurements])
            for figure in measurements[0].curves
        },
        samples=measurements[0].samples,
        timeline=measurements[0].timeline,
    )


def aggregate_seeds(measurements: Sequence[Measurement], seed: int = 0) -> page.Estimate:
    """The mean over trainings, with its 95 % interval.

    Of one training the interval tells of documents alone. Of several it is Student's, of their
    values, mean ± t s / √n with n - 1 degrees of freedom, or that of documents if it is wider. Few
    trainings tell little of others: for three, t is 4.3.
    """
    rng = np.random.default_rng(seed)
    values = [one.draws if len(one.draws) else [one.value] for one in measurements]
    draws = np.mean([rng.choice(some, NUM_RESAMPLES) for some in values], axis=0)
    told = np.asarray([one.value for one in measurements])
    low, high = np.percentile(draws, [2.5, 97.5])
    if len(measurements) > 1:
        wide = stats.t.ppf(0.975, len(measurements) - 1) * stats.sem(told)
        low, high = min(low, told.mean() - wide), max(high, told.mean() + wide)
    if measurements[0].share:
        low, high = max(low, 0.0), min(high, 1.0)
    return page.Estimate(float(told.mean()), float(low), float(high))


def bootstrap_mean(values: Sequence[float]) -> page.Estimate:
    """The mean of some values, with its 95 % interval by drawing them anew."""
    many = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    means = many[rng.integers(0, len(many), (NUM_RESAMPLES, len(many)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return page.Estimate(float(many.mean()), float(low), float(high))


def to_json(comparison: page.ComparisonResult) -> dict[str, dict[str, dict[str, float]]]:
    """Paradigm -> figure -> value, low, high: what `compare.json` holds."""
    return {
        one.name: {
            name: {key: _round_sig(x) for key, x in dataclasses.asdict(figure).items()}
            for name, figure in one.figures.items()
        }
        for one in comparison.contestants
    }


def published_subset(comparison: page.ComparisonResult) -> page.ComparisonResult:
    """What is told people: the figures that `merits` explains, and curves of a few."""
    known = {merit.name for merit in metrics.METRICS}
    contestants = [
        dataclasses.replace(
            one,
            figures={name: figure for name, figure in one.figures.items() if name in known},
            curves={name: one.curves[name] for name in CURVE_METRICS if name in one.curves},
        )
        for one in comparison.contestants
    ]
    bounds = {
        title: {name: figure for name, figure in figures.items() if name in known}
        for title, figures in comparison.bounds.items()
    }
    return dataclasses.replace(comparison, contestants=contestants, bounds=bounds)


def _latency_metrics(
    latency: Mapping[int, Sequence[tuple[float, int]]],
) -> dict[str, page.Estimate]:
    found = {}
    for batch, timed in latency.items():
        suffix = "" if batch == 1 else f"_{batch}"
        each = [seconds / batch for seconds, _ in timed]
        found[f"seconds_per_document{suffix}"] = bootstrap_mean(each)
        if batch == 1:
            found["passes"] = bootstrap_mean([float(passes) for _, passes in timed])
    return found


def _average_curves(curves: Sequence[Sequence[page.CurvePoint]]) -> list[page.CurvePoint]:
    """The mean of the trainings' points, one by one."""
    return [
        page.CurvePoint(*(float(np.mean(some)) for some in zip(*points, strict=True)))
        for points in zip(*curves, strict=True)
    ]


def _round_sig(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
