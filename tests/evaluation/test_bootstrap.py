import numpy as np
import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import bootstrap as bootstrap_lib


def percentile_interval(statistic, count, seed=0, num_resamples=1000, level=0.95):
    outside = 50 * (1 - level)
    values = bootstrap_lib.resample(statistic, count, seed, num_resamples)
    return tuple(np.percentile(values, [outside, 100 - outside], axis=0))


def mean_statistic(values):
    return lambda numbers: values[numbers].mean()


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = percentile_interval(mean_statistic(values), len(values), num_resamples=4000)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    inner = percentile_interval(
        mean_statistic(values), len(values), num_resamples=4000, level=0.6827
    )
    assert inner[1] - inner[0] == pytest.approx(2 * error, rel=0.05)


def test_interval_covers_the_true_mean_at_its_level():
    rng = np.random.default_rng(0)
    samples = rng.exponential(1.0, (300, 80))
    ends = [percentile_interval(mean_statistic(s), 80, seed, 300) for seed, s in enumerate(samples)]
    held = np.mean([low <= 1 <= high for low, high in ends])
    assert 0.9 < held < 0.97


def test_several_metrics_use_the_same_resamples():
    values = np.random.default_rng(0).random((50, 3))
    low, high = percentile_interval(
        lambda numbers: values[numbers].mean(axis=0), 50, num_resamples=200
    )
    assert low.shape == high.shape == (3,)
    for n in range(3):
        alone = percentile_interval(mean_statistic(values[:, n]), 50, num_resamples=200)
        assert (low[n], high[n]) == pytest.approx(alone)


def test_the_seed_determines_the_resamples():
    values = np.random.default_rng(0).random(50)
    first, again, other_seed = (
        percentile_interval(mean_statistic(values), 50, seed=seed, num_resamples=100)
        for seed in (0, 0, 1)
    )
    assert first == again != other_seed


def test_constant_values_have_zero_width():
    assert percentile_interval(mean_statistic(np.ones(9)), 9, num_resamples=20) == (1, 1)


@pytest.mark.parametrize(
    ("message", "choices"),
    [
        ("count=0", {"count": 0}),
        ("num_resamples=1", {"count": 3, "num_resamples": 1}),
    ],
)
def test_invalid_input_is_rejected(message, choices):
    with pytest.raises(UserError, match=message):
        bootstrap_lib.resample(mean_statistic(np.ones(3)), **choices)
