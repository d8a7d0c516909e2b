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
from oneflow_jax.shapes import Array, Float, PyTree

PredictMeanFn = Callable[[Float[Array, ""], Float[Array, ""], PyTree], PyTree]
"""Function from (t, s, x_t) to ψ_{t,s}(x_t); with s = t this is the x1 prediction."""


def solve(
    predict_mean: PredictMeanFn,
    state: PyTree,
    times: plan_values.Times,
    return_trajectory: bool = False,
) -> ode.Solution:
    """Advance `state` through all intervals except the last.

    Args:
        predict_mean: function that returns ψ of a state.
        state: x at the first time; any tree of float32 arrays `[*b L n]`.
        times: start times of the intervals, increasing.
        return_trajectory: whether to return the states at all times.
    """
    at = jnp.asarray(times, jnp.float32)

    def step(x: PyTree, move: tuple[Array, Array]) -> tuple[PyTree, PyTree]:
        t, s = move

        def advance(x_t: Array, mean: Array) -> Array:
            start, end = (jnp.broadcast_to(time, x_t.shape[:-1]) for time in move)
            return gaussian.euler_step(x_t, mean, start, end)

        return jax.tree.map(advance, x, predict_mean(t, s, x)), x if return_trajectory else None

    last, path = jax.lax.scan(step, state, (at[:-1], at[1:]))
    if return_trajectory:
        path = jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), path, last)
    return ode.Solution(final=last, times=at, trajectory=path)
