import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.flows import time_samplers

NUM_SAMPLES = 4000


@pytest.mark.parametrize("rows", [1, 5, 8, 64])
def test_stratified_has_exactly_one_number_in_each_stratum(rows):
    u = jax.vmap(lambda key: time_samplers.sample_stratified(key, rows))(
        jax.random.split(jax.random.key(0), 50)
    )
    assert u.shape == (50, rows)
    assert u.min() >= 0
    np.testing.assert_array_equal(
        np.sort(np.floor(np.asarray(u) * rows)), np.tile(np.arange(rows), (50, 1))
    )


def test_stratified_is_uniform_in_each_row_of_the_batch():
    keys = jax.random.split(jax.random.key(1), NUM_SAMPLES)
    u = np.asarray(jax.vmap(lambda key: time_samplers.sample_stratified(key, 8))(keys))
    for row in u.T:
        assert_uniform(row)
    # The place of u within its stratum is drawn independently for each row.
    assert (u * 8 % 1).std(axis=1).mean() > 0.2


def test_documents_of_a_row_have_distinct_uniform_numbers():
    segment = jnp.array([1, 1, 2, 2, 3, 0])
    keys = jax.random.split(jax.random.key(2), NUM_SAMPLES // 8)
    u = jax.vmap(lambda key: time_samplers.sample_stratified(key, 8))(keys).reshape(-1)
    t = np.asarray(time_samplers.spread_over_documents(u, jnp.broadcast_to(segment, (len(u), 6))))
    np.testing.assert_allclose(t[:, 0], u, atol=1e-7)
    np.testing.assert_array_equal(t[:, 0], t[:, 1])
    np.testing.assert_array_equal(t[:, 2], t[:, 3])
    for a, b in ((0, 2), (0, 4), (2, 4)):
        apart = np.abs(t[:, a] - t[:, b])
        assert np.minimum(apart, 1 - apart).min() > 0.1
    for slot in (0, 2, 4):
        assert t[:, slot].min() >= 0
        assert t[:, slot].max() < 1
        assert_uniform(t[:, slot])


def test_logit_normal_has_logit_normal_quantiles():
    below = jnp.array([0.022750132, 0.15865526, 0.5, 0.8413447, 0.97724986])  # -2 to 2 std
    mean, deviation = -0.4, 1.3
    expected = jax.nn.sigmoid(mean + deviation * jnp.arange(-2.0, 3.0))
    np.testing.assert_allclose(
        time_samplers.LogitNormalTimeSampler(mean, deviation)(below), expected, atol=1e-4
    )


def test_logit_normal_stays_inside_the_interval():
    t = np.asarray(
        time_samplers.LogitNormalTimeSampler(0.0, 1.0)(jnp.array([0.0, 1e-9, 1 - 1e-7, 1.0]))
    )
    assert np.all(np.isfinite(t))
    assert t.min() > 0
    assert t.max() < 1


def test_power_favors_early_times_above_one_and_is_uniform_at_one():
    u = jnp.array([0.0, 0.25, 0.5, 1.0])
    np.testing.assert_array_equal(time_samplers.PowerTimeSampler()(u), u)
    np.testing.assert_allclose(time_samplers.PowerTimeSampler(2.0)(u), [0, 0.0625, 0.25, 1])


def assert_uniform(values):
    """Assert that each tenth of [0, 1] holds 0.1 of the values, within 4 standard errors."""
    shares = np.histogram(values, 10, (0.0, 1.0))[0] / len(values)
    assert np.abs(shares - 0.1).max() < 4 * np.sqrt(0.1 * 0.9 / len(values))


def test_information_sampler_has_the_quantiles_of_the_gumbel_curve():
    u = np.float32([0.05, 0.25, 0.5, 0.75, 0.95])
    # gamma = location - scale ln(-ln(1 - u)) solves 1 - H(t) / H(0) = u.
    gamma = 4.8 - 1.14 * np.log(-np.log1p(-np.float64(u)))
    expected = 1 / (1 + np.exp(gamma / 2))
    sampler = time_samplers.InformationTimeSampler(4.8, 1.14, 1.0)
    np.testing.assert_allclose(sampler(jnp.asarray(u)), expected, rtol=5e-3)


def test_information_sampler_mixes_with_a_power_in_the_given_fraction():
    rng = np.random.default_rng(0)
    u = jnp.asarray(rng.random(200_000), jnp.float32)
    t = np.asarray(time_samplers.InformationTimeSampler(4.8, 1.14, 0.3, 2.0)(u))
    pure = np.asarray(time_samplers.InformationTimeSampler(4.8, 1.14, 1.0)(u))
    for limit in (0.02, 0.07, 0.15, 0.5, 0.9):
        expected = 0.3 * np.mean(pure < limit) + 0.7 * limit**0.5
        assert abs(np.mean(t < limit) - expected) < 0.005
    ends = time_samplers.InformationTimeSampler(4.8, 1.14, 0.3, 2.0)(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(ends, [0.0, 1.0])


def test_without_a_fraction_the_information_sampler_is_the_power_sampler():
    u = jnp.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(
        time_samplers.InformationTimeSampler(4.8, 1.14, 0.0, 1.5)(u),
        time_samplers.PowerTimeSampler(1.5)(u),
        atol=1e-4,
    )
