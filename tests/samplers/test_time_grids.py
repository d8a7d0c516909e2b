"""Tests of learned time grids: dense where the loss falls."""

import numpy as np

from oneflow_jax.samplers import time_grids

TIMES = np.linspace(0, 1, 17)


def make_grid(losses):
    return time_grids.loss_adaptive_grid(TIMES.tolist(), np.asarray(losses).tolist())


def fraction_before(grid, t, count=1000):
    return np.mean(grid(np.arange(count) / count) < t)


def test_linear_loss_gives_equal_steps():
    even = make_grid(3 - 2 * TIMES)
    np.testing.assert_allclose(even(TIMES), TIMES, atol=1e-6)


def test_steps_are_dense_where_the_loss_falls():
    early = make_grid(np.where(TIMES < 0.25, 4 - 16 * TIMES, 0.0))
    # All steps are early, except three quarters of the uniform fraction.
    expected = 1 - time_grids.UNIFORM_FRACTION + time_grids.UNIFORM_FRACTION / 4
    np.testing.assert_allclose(fraction_before(early, 0.25), expected, atol=2e-3)


def test_step_density_is_the_square_root_of_the_loss_gradient():
    slopes = np.where(TIMES < 0.5, 8.0 * TIMES, 4 + 2 * (TIMES - 0.5))
    grid = make_grid(5 - slopes)
    # The loss falls 4 times as fast in the first part, so the density of steps is 2 times as high.
    np.testing.assert_allclose(
        fraction_before(grid, 0.5),
        (1 - time_grids.UNIFORM_FRACTION) * 2 / 3 + time_grids.UNIFORM_FRACTION / 2,
        atol=2e-3,
    )


def test_noisy_and_constant_losses_give_valid_grids():
    bumpy = 2 - TIMES + np.random.default_rng(0).normal(0, 0.3, TIMES.size)
    for losses in (bumpy, np.ones_like(TIMES), TIMES):
        times = time_grids.step_times(make_grid(losses), 16)
        assert times[0] == 0
        assert np.all(np.diff(times) > 0)
        assert times[-1] < 1
    np.testing.assert_allclose(time_grids.step_times(make_grid(TIMES), 4), [0, 0.25, 0.5, 0.75])


def test_half_of_the_steps_are_for_text_that_is_ahead():
    losses = np.where(TIMES < 0.25, 4 - 16 * TIMES, 0.0).tolist()
    grid = time_grids.leading_text_grid(TIMES.tolist(), losses, lead=8.0)
    images = time_grids.loss_adaptive_grid(TIMES.tolist(), losses)
    s = np.arange(1000) / 1000
    assert grid(s)[0] == 0
    assert np.all(np.diff(grid(s)) >= 0)
    # The text loss falls until t = 1/4, which is t = 1/25 of the document.
    (end,) = time_grids.document_times([0.25], 8.0)
    np.testing.assert_allclose(end, 1 / 25)
    expected = (1 + fraction_before(images, end)) / 2
    np.testing.assert_allclose(fraction_before(grid, end), expected, atol=2e-3)
    expected = (1 + fraction_before(images, 0.5)) / 2
    np.testing.assert_allclose(fraction_before(grid, 0.5), expected, atol=2e-3)
