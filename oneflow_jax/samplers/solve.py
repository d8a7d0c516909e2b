"""From noise to data by the way that a schedule names: a solver of the ODE, or renoising."""

import jax
import jax.numpy as jnp

from oneflow_jax.flows import gaussian
from oneflow_jax.samplers import ode, renoise
from oneflow_jax.shapes import Array, Float, Int, Key, PyTree


def solve(
    predict_x1: renoise.PredictX1Fn,
    corrupt: renoise.CorruptFn,
    state: PyTree,
    schedule: ode.SolverSchedule,
    return_trajectory: bool = False,
) -> ode.Solution:
    """Carries `state` through all intervals of `schedule` but the last.

    Args:
        predict_x1: what the network makes of a state.
        corrupt: takes that to the next time; a solver of the ODE does not ask for it.
        state: x at the first of the plan's times; any tree of float32 arrays `[*b L n]`.
        schedule: solver and times.
        return_trajectory: whether to keep the states at all of the plan's times.
    """

    def velocity(t: Float[Array, ""], x: PyTree) -> PyTree:
        def moved(x_1: Array, x_t: Array) -> Array:
            return gaussian.velocity(x_1, x_t, jnp.broadcast_to(t, x_t.shape[:-1]))

        return jax.tree.map(moved, predict_x1(t, x), x)

    if schedule.solver == ode.RENOISE:
        return renoise.solve(predict_x1, corrupt, state, schedule.times, return_trajectory)
    return ode.solve(velocity, state, schedule, return_trajectory)


def step_keys(keys: Key[Array, "B"], step: Int[Array, ""]) -> Key[Array, "B"]:
    """Each row's key for a step's noise: neither of the two that `split` makes of it."""
    # What is folded in must not be 0 or 1: these are they.
    return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 2), step))(keys)
