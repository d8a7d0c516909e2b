"""Tests of the samplers `renoise`, `euler`, `jump` and `consistency`.

The data has only two points, so the tests can compute the exact x1 prediction.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.flows import gaussian
from oneflow_jax.samplers import ode, solve
from tests import sampling

COUNT, WIDTH = 4_096, 4
CENTER = 1.5
"""Data are at plus or minus this value in all dimensions."""

PLUS_FRACTION = 0.8
"""Fraction of the data at plus `CENTER`."""


def predict_x1(t, x):
    """Return E[x_1 | x_t] for the two points."""
    odds = CENTER * t * jnp.sum(x, axis=-1, keepdims=True) / (1 - t) ** 2
    odds += 0.5 * math.log(PLUS_FRACTION / (1 - PLUS_FRACTION))
    return CENTER * jnp.tanh(odds) * jnp.ones_like(x)


def predict_mean(t, end, x):
    """Return ψ_{t,end}(x) of `flows.flow_map` by 200 steps of Euler's method."""
    times = jnp.linspace(t, jnp.minimum(end, 0.999), 201)

    def step(n, x):
        ends = (jnp.full(COUNT, time) for time in (times[n], times[n + 1]))
        return gaussian.euler_step(x, predict_x1(times[n], x), *ends)

    moved = jax.lax.fori_loop(0, 200, step, x)
    mean = ((1 - t) * moved - (1 - end) * x) / jnp.maximum(end - t, 1e-6)
    return jnp.where(end > t, mean, predict_x1(t, x))


def sample_noise(step):
    return jax.random.normal(jax.random.key(step), (COUNT, WIDTH))


def corrupt(step, s, x_1):
    return gaussian.interpolate(sample_noise(step), x_1, jnp.full(COUNT, s))


def run_solver(solver, steps):
    plan = ode.make_schedule(solver, steps)
    stepper = solve.make_stepper(predict_mean, corrupt, plan)
    state, t = ode.solve(stepper, sample_noise(0), plan.times)
    return predict_mean(t, solve.last_prediction_end(plan, t), state)


def list_states(solver, steps):
    plan = ode.make_schedule(solver, steps)
    stepper = solve.make_stepper(predict_mean, corrupt, plan)
    return sampling.list_states(stepper, sample_noise(0), plan.times)


@pytest.mark.parametrize(("solver", "often"), [("euler", PLUS_FRACTION), (ode.RENOISE, 0.88)])
def test_ode_samples_the_data_distribution_and_renoising_favors_the_frequent_point(solver, often):
    """Check that samples reach the two points; renoising is biased for any number of steps."""
    end = run_solver(solver, 200)
    np.testing.assert_allclose(np.abs(end), CENTER, atol=0.02)
    assert np.mean(end[:, 0] > 0) == pytest.approx(often, abs=0.02)


@pytest.mark.parametrize("solver", ode.FLOW_MAP_SOLVERS)
@pytest.mark.parametrize("steps", [1, 3])
def test_an_exact_flow_map_samples_the_data_distribution_in_few_steps(solver, steps):
    """Unlike renoising with the x1 prediction, `consistency` has no bias."""
    end = run_solver(solver, steps)
    assert np.mean(end[:, 0] > 0) == pytest.approx(PLUS_FRACTION, abs=0.02)
    np.testing.assert_allclose(np.median(np.abs(end)), CENTER, atol=0.05)


def test_only_the_ode_depends_on_its_first_noise():
    def correlate_with_noise(solver):
        early = np.asarray(list_states(solver, 24)[1], np.float64).ravel()
        return np.corrcoef(np.asarray(sample_noise(0)).ravel(), early)[0, 1]

    assert correlate_with_noise("euler") > 0.9
    assert abs(correlate_with_noise(ode.RENOISE)) < 0.1


def test_nfe_equals_the_number_of_calls():
    calls = []

    def counted_prediction(t, end, x):
        jax.debug.callback(lambda: calls.append(1))
        return predict_x1(t, x)

    plan = ode.make_schedule(ode.RENOISE, 7)
    stepper = solve.make_stepper(counted_prediction, corrupt, plan)
    ode.solve(stepper, sample_noise(0), plan.times)
    jax.effects_barrier()
    # The caller evaluates the network for the last interval.
    assert len(calls) + 1 == plan.nfe == 7
