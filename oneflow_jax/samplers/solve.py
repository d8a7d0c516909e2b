"""Dispatch to the sampling method that a schedule names: ODE solver, renoising or flow map."""

import jax
import jax.numpy as jnp

from oneflow_jax.flows import gaussian
from oneflow_jax.samplers import jump, ode, renoise
from oneflow_jax.shapes import Array, Float, Int, Key, PyTree


def make_stepper(
    predict_mean: jump.PredictMeanFn, corrupt: renoise.CorruptFn, schedule: ode.SolverSchedule
) -> ode.Stepper:
    """Return the steps through all intervals of `schedule` except the last.

    The state is any tree of float32 arrays `[*b L n]`; with renoising, any tree.

    Args:
        predict_mean: function that returns the mean of the x1 predictions from a time to a later
            time. ODE solvers and renoising call it with two equal times, for the x1 prediction.
        corrupt: function that corrupts the prediction to the next time; only renoising uses it.
        schedule: solver and times.
    """

    def velocity(t: Float[Array, ""], x: PyTree) -> PyTree:
        def compute_velocity(x_1: Array, x_t: Array) -> Array:
            return gaussian.velocity(x_1, x_t, jnp.broadcast_to(t, x_t.shape[:-1]))

        return jax.tree.map(compute_velocity, predict_mean(t, t, x), x)

    if schedule.solver == "jump":
        return jump.make_stepper(predict_mean, schedule.times)
    if schedule.solver in ode.RENOISING_SOLVERS:

        def predict_x1(t: Float[Array, ""], x: PyTree) -> PyTree:
            return predict_mean(t, last_prediction_end(schedule, t), x)

        return renoise.make_stepper(predict_x1, corrupt, schedule.times)
    return ode.make_stepper(velocity, schedule)


def last_prediction_end(schedule: ode.SolverSchedule, t: Float[Array, ""]) -> Float[Array, ""]:
    """Return the end of the interval of the last prediction, which becomes the sample.

    The end is 1 for a flow map, and the time t itself for the x1 prediction.
    """
    return jnp.ones_like(t) if schedule.solver in ode.FLOW_MAP_SOLVERS else t


def step_keys(keys: Key[Array, "B"], step: Int[Array, ""]) -> Key[Array, "B"]:
    """Return one key per row for the fresh noise of a step."""
    # Fold in 2, not 0 or 1: `jax.random.split(key)` returns exactly `fold_in(key, 0)` and
    # `fold_in(key, 1)` (partitionable threefry).
    return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 2), step))(keys)
