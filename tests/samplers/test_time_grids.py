"""Learned grids: dense where the loss falls."""

import numpy as np

from oneflow_jax.samplers import time_grids

CLOCKS = np.linspace(0, 1, 17)


def learned(losses):
    return time_grids.learned(CLOCKS.tolist(), np.asarray(losses).tolist())


def steps_before(grid, t, count=1000):
    return np.mean(grid(np.arange(count) / count) < t)


def test_a_loss_that_falls_evenly_gives_even_steps():
    even = learned(3 - 2 * CLOCKS)
    np.testing.assert_allclose(even(CLOCKS), CLOCKS, atol=1e-6)


def test_steps_are_dense_where_the_loss_falls():
    early = learned(np.where(CLOCKS < 0.25, 4 - 16 * CLOCKS, 0.0))
    # All but the even share, of which a quarter is early too.
    expected = 1 - time_grids.EVEN + time_grids.EVEN / 4
    np.testing.assert_allclose(steps_before(early, 0.25), expected, atol=2e-3)


def test_density_goes_with_the_square_root_of_the_slope():
    slopes = np.where(CLOCKS < 0.5, 8.0 * CLOCKS, 4 + 2 * (CLOCKS - 0.5))
    grid = learned(5 - slopes)
    # Slopes 8 and 2: densities 2 to 1.
    np.testing.assert_allclose(
        steps_before(grid, 0.5), (1 - time_grids.EVEN) * 2 / 3 + time_grids.EVEN / 2, atol=2e-3
    )


def test_noise_and_no_fall_at_all_do_no_harm():
    bumpy = 2 - CLOCKS + np.random.default_rng(0).normal(0, 0.3, CLOCKS.size)
    for losses in (bumpy, np.ones_like(CLOCKS), CLOCKS):
        times = time_grids.times(learned(losses), 16)
        assert times[0] == 0
        assert np.all(np.diff(times) > 0)
        assert times[-1] < 1
    np.testing.assert_allclose(time_grids.times(learned(CLOCKS), 4), [0, 0.25, 0.5, 0.75])
