import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.samplers import ode, time_grids
from tests import sampling

SOLVER_ORDERS = {"euler": 1, "heun": 2, "midpoint": 2}


def solve(velocity, state, plan):
    return ode.solve(ode.make_stepper(velocity, plan), state, plan.times)


def velocity(t, x):
    """Return dx/dt = x cos 3t, whose solution is x(0) exp(sin(3t) / 3)."""
    return jax.tree.map(lambda value: value * jnp.cos(3 * t), x)


def solver_error(solver, steps):
    """Return the solver's error at t = 0.8 with equal steps."""
    plan = ode.make_schedule(solver, 0, tuple(np.linspace(0, 0.8, steps + 1)))
    end, _ = solve(velocity, jnp.ones(2), plan)
    truth = np.exp(np.sin(3 * 0.8) / 3)
    return float(np.abs(np.asarray(end) - truth).max())


@pytest.mark.parametrize("solver", SOLVER_ORDERS)
def test_the_error_falls_with_the_order_of_the_solver(solver):
    steps = [8, 16, 32, 64]
    errors = [solver_error(solver, n) for n in steps]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(order - SOLVER_ORDERS[solver]) < 0.25, errors


@pytest.mark.parametrize("solver", ["tsit5", "dopri5"])
def test_solvers_of_order_five_are_exact_to_rounding(solver):
    assert solver_error(solver, 8) < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("solver", ode.SOLVERS)
def test_nfe_equals_the_number_of_calls(solver, steps):
    calls = []

    def counted_velocity(t, x):
        # The callback has no arguments: reading arrays inside it can deadlock on few cores.
        jax.debug.callback(lambda: calls.append(1))
        # v is 0/0 at t = 1: NaN shows if the solver evaluates it there.
        return jnp.where(t < 1, velocity(t, x), jnp.nan)

    plan = ode.make_schedule(solver, steps)
    end, _ = solve(counted_velocity, jnp.ones(2), plan)
    jax.effects_barrier()
    # The caller evaluates the network for the last interval.
    assert len(calls) + 1 == plan.nfe
    assert bool(jnp.all(jnp.isfinite(end)))


def test_single_steps_give_the_solution_of_all_steps():
    plan = ode.make_schedule("midpoint", 5, "cosine", start=0.2)
    state = {"x": jnp.ones(2), "y": jnp.zeros((3, 1))}
    end, last_time = solve(velocity, state, plan)
    np.testing.assert_allclose(last_time, plan.times[-1], rtol=1e-6)
    states = sampling.list_states(ode.make_stepper(velocity, plan), state, plan.times)
    assert states["x"].shape == (5, 2)
    assert jnp.all(jnp.diff(states["x"], axis=0) != 0)
    np.testing.assert_allclose(states["x"][-1], end["x"], rtol=1e-6)


def test_a_schedule_of_one_interval_needs_no_step():
    end, last_time = solve(velocity, jnp.full(2, 7.0), ode.make_schedule("euler", 1, start=0.5))
    np.testing.assert_array_equal(end, 7.0)
    assert last_time == 0.5


def test_grids_rise_from_the_start_to_below_one():
    for grid in time_grids.TIME_GRIDS:
        times = ode.make_schedule("euler", 8, grid, start=0.25).times
        assert len(times) == 8
        assert times[0] == 0.25
        assert np.all(np.diff(times) > 0)
        assert times[-1] < 1
    even = ode.make_schedule("euler", 4).times
    np.testing.assert_allclose(even, [0, 0.25, 0.5, 0.75])
    for grid, power in (("quadratic", 2), ("cubic", 3)):
        np.testing.assert_allclose(ode.make_schedule("euler", 4, grid).times, np.power(even, power))
    assert ode.make_schedule("euler", 4, "cosine").times[1] < 0.25 < ode.make_schedule(
        "euler", 4, "sine"
    ).times[1]  # fmt: skip
    np.testing.assert_allclose(
        ode.make_schedule("euler", 9, (0.0, 0.1, 0.5), 0.5).times, (0.5, 0.55, 0.75)
    )


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("rk45", 4), "sampling.solver='rk45'"),
        (("euler", 4, "square"), "sampling.time_grid='square'"),
        (("euler", 0), "sampling.steps=0"),
        (("euler", 4, "uniform", 1.0), "sampling.edit_start=1.0"),
        (("euler", 4, "uniform", -0.1), "sampling.edit_start=-0.1"),
        (("euler", 4, (0.1, 0.5)), "sampling.time_grid"),
        (("euler", 4, (0.0, 0.5, 0.5)), "sampling.time_grid"),
        (("euler", 4, (0.0, 1.0)), "sampling.time_grid"),
        (("euler", 4, ()), "sampling.time_grid"),
    ],
)
def test_invalid_schedules_are_refused(arguments, field):
    with pytest.raises(UserError, match=field):
        ode.make_schedule(*arguments)
