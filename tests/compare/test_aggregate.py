"""Tests of aggregating seeds: means, intervals and JSON."""

import numpy as np
import pytest

from oneflow_jax.compare import aggregate, page
from oneflow_jax.compare.serialize import Measurement, RunMeasurements


def normal_measurement(mean, std, seed=0):
    draws = np.random.default_rng(seed).normal(mean, std, 4_000)
    return Measurement(mean, list(draws))


def make_measurements(**metrics):
    curves = {"interleaved_score": [page.CurvePoint(8, 0.1, 0.25), page.CurvePoint(16, 0.2, 0.75)]}
    timeline = page.Timeline(2, 1.0, [page.TimelineBar("text", "a fox", 0, 2)])
    return RunMeasurements(metrics, curves, [], timeline)


def test_single_run_has_the_bootstrap_interval():
    figure = aggregate.aggregate_seeds([normal_measurement(0.5, 0.1)])
    assert figure.value == 0.5
    assert (figure.low, figure.high) == pytest.approx((0.5 - 0.196, 0.5 + 0.196), abs=0.02)


def test_different_runs_widen_the_interval():
    """Check that three different runs (0.2, 0.5, 0.8), each precise, give a wide interval."""
    measurements = [
        normal_measurement(mean, 0.01, seed) for seed, mean in enumerate((0.2, 0.5, 0.8))
    ]
    figure = aggregate.aggregate_seeds(measurements)
    assert figure.value == pytest.approx(0.5)
    assert figure.low < 0.3
    assert figure.high > 0.7


def test_interval_of_three_runs_has_95_percent_coverage():
    rng = np.random.default_rng(0)
    misses = [
        aggregate.aggregate_seeds([Measurement(x) for x in rng.normal(0.5, 0.1, 3)])
        for _ in range(400)
    ]
    assert np.mean([one.low <= 0.5 <= one.high for one in misses]) == pytest.approx(0.95, abs=0.03)


def test_interval_of_a_fraction_stays_within_0_and_1():
    measurements = [Measurement(x, share=True) for x in (0.2, 0.8, 0.5)]
    assert (
        aggregate.aggregate_seeds(measurements).low,
        aggregate.aggregate_seeds(measurements).high,
    ) == (0, 1)


def test_equal_runs_narrow_the_interval():
    one, four = (
        aggregate.aggregate_seeds([normal_measurement(0.5, 0.1, seed) for seed in range(n)])
        for n in (1, 4)
    )
    assert four.high - four.low == pytest.approx((one.high - one.low) / 2, rel=0.15)


def test_constant_metric_has_no_interval():
    assert aggregate.aggregate_seeds([Measurement(7.0)]) == page.Estimate(7.0, 7.0, 7.0)


def test_model_has_the_metrics_of_all_its_runs():
    measurements = [
        make_measurements(kid_efficientnet=Measurement(0.1), fd_efficientnet=Measurement(3.0)),
        make_measurements(kid_efficientnet=Measurement(0.3)),
    ]
    latency = {1: [(2.0, 30), (4.0, 50)], 8: [(8.0, 50)]}
    aggregated = aggregate.aggregate_model("transfusion", measurements, latency)
    assert (aggregated.title, aggregated.family) == ("Transfusion", "AR + flow")
    assert aggregated.metrics["kid_efficientnet"].value == pytest.approx(0.2)
    assert "fd_efficientnet" not in aggregated.metrics
    assert aggregated.metrics["seconds_per_document"].value == 3.0
    assert aggregated.metrics["seconds_per_document_8"].value == 1.0
    assert aggregated.metrics["nfe"] == page.Estimate(40.0, 30.0, 50.0)


def test_curves_are_means_over_runs():
    first, second = make_measurements(), make_measurements()
    second.curves["interleaved_score"][0] = page.CurvePoint(8, 0.3, 0.75)
    aggregated = aggregate.aggregate_model("oneflow", [first, second], {})
    assert aggregated.curves["interleaved_score"] == [
        page.CurvePoint(8, pytest.approx(0.2), 0.5), page.CurvePoint(16, pytest.approx(0.2), 0.75)
    ]  # fmt: skip


def test_unknown_paradigm_is_titled_by_its_name():
    assert aggregate.aggregate_model("mine", [make_measurements()], {}).title == "mine"


def test_json_has_value_and_interval_by_paradigm_and_metric():
    measurements = [make_measurements(kid_efficientnet=Measurement(1 / 3))]
    result = page.ComparisonResult(
        models=[aggregate.aggregate_model("oneflow", measurements, {})],
        num_images=2,
        flops_budget=1.0,
        seeds=(0,),
        machine={},
        data={},
    )
    third = {"value": 0.333333, "low": 0.333333, "high": 0.333333}
    assert aggregate.to_json(result) == {"oneflow": {"kid_efficientnet": third}}
