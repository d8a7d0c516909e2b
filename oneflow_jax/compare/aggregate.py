"""Aggregates the measurements of a paradigm's training runs to means with 95 % intervals."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from oneflow_jax.compare import metrics, page
from oneflow_jax.compare.serialize import Measurement, RunMeasurements

NUM_RESAMPLES = 2_000

CURVE_METRICS = (
    "interleaved_score",
    "template_validity",
    "text_to_image",
    "kid_efficientnet",
    "fd_efficientnet",
)
"""Metrics that are plotted against forward passes and seconds."""

SIGNIFICANT_DIGITS = 6
"""Significant digits of numbers in `compare.json`; rounding hides differences in the last bits."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Texts that describe a paradigm.

    Attributes:
        title: display name.
        family: family of the paradigm, as the table of families shows it.
        mode: how the paradigm generates, as the table of models shows it.
        absence_reasons: reason why a metric is missing, by metric.
    """

    title: str
    family: str
    mode: str
    absence_reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)


_AR, _HYBRID, _FLOW = "Sequential AR", "AR + flow", "Concurrent flow"

MODEL_INFO = {
    "chameleon": ModelInfo("Chameleon", _AR, "text and image codes, left to right"),
    "dalle": ModelInfo(
        "DALL-E",
        _AR,
        "all text, then image codes, left to right",
        dict.fromkeys(("image_to_text", "cider"), "text comes before images, so it cannot caption"),
    ),
    "transfusion": ModelInfo("Transfusion", _HYBRID, "text left to right, images by flow matching"),
    "lmfusion": ModelInfo("LMFusion", _HYBRID, "as Transfusion, with a frozen text model"),
    "oneflow": ModelInfo(
        "OneFlow",
        _FLOW,
        "all at once, tokens as embedding vectors",
        {"nats_per_document": "its tokens are points of a continuous flow and have no probability"},
    ),
    "mask_flow": ModelInfo("Mask Flow", _FLOW, "all at once, tokens unmasked"),
    "edit_flow": ModelInfo(
        "Edit Flow",
        _FLOW,
        "all at once, tokens and images inserted",
        {"nats_per_document": "no finite bound on its likelihood is known"},
    ),
}


def model_info(paradigm: str) -> ModelInfo:
    """Return the entry of `MODEL_INFO`; without an entry, each text is the paradigm's name."""
    return MODEL_INFO.get(paradigm, ModelInfo(paradigm, paradigm, paradigm))


def aggregate_model(
    paradigm: str,
    measurements: Sequence[RunMeasurements],
    latency: Mapping[int, Sequence[tuple[float, int]]],
) -> page.ModelResult:
    """Aggregate all measurements of a paradigm.

    Args:
        paradigm: name of the paradigm.
        measurements: measurements of its training runs, one per seed.
        latency: (seconds, forward passes) of each timed batch, by batch size.
    """
    about = model_info(paradigm)
    names = [
        figure
        for figure in measurements[0].metrics
        if all(figure in one.metrics for one in measurements)
    ]
    figures = {
        figure: aggregate_seeds([one.metrics[figure] for one in measurements]) for figure in names
    }
    figures |= _latency_metrics(latency)
    return page.ModelResult(
        name=paradigm,
        title=about.title,
        family=about.family,
        mode=about.mode,
        metrics=figures,
        absence_reasons=about.absence_reasons,
        curves={
            figure: _average_curves([one.curves[figure] for one in measurements])
            for figure in measurements[0].curves
        },
        samples=measurements[0].samples,
        timeline=measurements[0].timeline,
    )


def aggregate_seeds(measurements: Sequence[Measurement], seed: int = 0) -> page.Estimate:
    """Return the mean over training runs, with a 95 % interval.

    For a single run, this is the bootstrap interval over documents. For n runs, it is the smallest
    interval that contains both the bootstrap interval over documents and Student's t interval over
    runs, mean ± t s / √n with n - 1 degrees of freedom. The t interval of a few runs is wide: for
    n = 3, t is 4.3.
    """
    rng = np.random.default_rng(seed)
    values = [one.draws if len(one.draws) else [one.value] for one in measurements]
    draws = np.mean([rng.choice(run_values, NUM_RESAMPLES) for run_values in values], axis=0)
    means = np.asarray([one.value for one in measurements])
    low, high = np.percentile(draws, [2.5, 97.5])
    if len(measurements) > 1:
        count = len(measurements)
        wide = special.stdtrit(count - 1, 0.975) * means.std(ddof=1) / np.sqrt(count)
        low, high = min(low, means.mean() - wide), max(high, means.mean() + wide)
    if measurements[0].share:
        low, high = max(low, 0.0), min(high, 1.0)
    return page.Estimate(float(means.mean()), float(low), float(high))


def bootstrap_mean(values: Sequence[float]) -> page.Estimate:
    """Return the mean of the values with its 95 % bootstrap interval."""
    many = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    means = many[rng.integers(0, len(many), (NUM_RESAMPLES, len(many)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return page.Estimate(float(many.mean()), float(low), float(high))


def to_json(comparison: page.ComparisonResult) -> dict[str, dict[str, dict[str, float]]]:
    """Return the content of `compare.json`: value and interval, by paradigm and metric."""
    return {
        one.name: {
            name: {key: _round_sig(x) for key, x in dataclasses.asdict(figure).items()}
            for name, figure in one.metrics.items()
        }
        for one in comparison.models
    }


def published_subset(comparison: page.ComparisonResult) -> page.ComparisonResult:
    """Return what the page shows: the metrics in `METRICS`, and the curves of `CURVE_METRICS`."""
    known = {merit.name for merit in metrics.METRICS}
    models = [
        dataclasses.replace(
            one,
            metrics={name: figure for name, figure in one.metrics.items() if name in known},
            curves={name: one.curves[name] for name in CURVE_METRICS if name in one.curves},
        )
        for one in comparison.models
    ]
    reference_bounds = {
        title: {name: figure for name, figure in figures.items() if name in known}
        for title, figures in comparison.reference_bounds.items()
    }
    return dataclasses.replace(comparison, models=models, reference_bounds=reference_bounds)


def _latency_metrics(
    latency: Mapping[int, Sequence[tuple[float, int]]],
) -> dict[str, page.Estimate]:
    estimates = {}
    for batch, timed in latency.items():
        suffix = "" if batch == 1 else f"_{batch}"
        each = [seconds / batch for seconds, _ in timed]
        estimates[f"seconds_per_document{suffix}"] = bootstrap_mean(each)
        if batch == 1:
            estimates["nfe"] = bootstrap_mean([float(passes) for _, passes in timed])
    return estimates


def _average_curves(curves: Sequence[Sequence[page.CurvePoint]]) -> list[page.CurvePoint]:
    """Average the curves of several training runs, point by point."""
    return [
        page.CurvePoint(*(float(np.mean(field)) for field in zip(*points, strict=True)))
        for points in zip(*curves, strict=True)
    ]


def _round_sig(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
