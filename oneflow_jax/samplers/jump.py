"""Sampler that evaluates a flow map from each time to the next; see `flows.flow_map`.

    x_s = X_{t,s}(x_t) = (1 - s)/(1 - t) x_t + (s - t)/(1 - t) ψ_{t,s}(x_t)

The result for given noise is the one of the ODE, up to the error of the network, with one forward
pass per interval of any length.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from oneflow_jax.flows import gaussian
from oneflow_jax.samplers import ode, plan_values
from oneflow_jax.shapes import Array, Float, Int, PyTree

PredictMeanFn = Callable[[Float[Array, ""], Float[Array, ""], PyTree], PyTree]
"""Function from (t, s, x_t) to ψ_{t,s}(x_t); with s = t this is the x1 prediction."""


def make_stepper(predict_mean: PredictMeanFn, times: plan_values.Times) -> ode.Stepper:
    """Return the steps of the flow map.

    Args:
        predict_mean: function that returns ψ of a state.
        times: start times of the intervals, increasing. The state is any tree of float32 arrays
            `[*b L n]`.
    """
    at, _ = plan_values.step_times(times)

    def step(number: Int[Array, ""], carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        x, _ = carry
        t, s = at[number], at[number + 1]

        def advance(x_t: Array, mean: Array) -> Array:
            start, end = (jnp.broadcast_to(time, x_t.shape[:-1]) for time in (t, s))
            return gaussian.euler_step(x_t, mean, start, end)

        return jax.tree.map(advance, x, predict_mean(t, s, x)), None

    return ode.Stepper(lambda x: (x, None), step)
