"""From noise to data by the way that a schedule names: a solver of the ODE, or renoising."""

import jax
import jax.numpy as jnp

from oneflow_jax.flows import gaussian
from oneflow_jax.samplers import ode, renoise
from oneflow_jax.shapes import Array, Float, Int, Key, PyTree


def solve(
    belief: renoise.Belief,
    corrupt: renoise.Corrupt,
    state: PyTree,
    plan: ode.Schedule,
    record: bool = False,
) -> ode.Solution:
    """Carries `state` through all intervals of `plan` but the last.

    Args:
        belief: what the network makes of a state.
        corrupt: takes that to the next time; a solver of the ODE does not ask for it.
        state: x at the first of the plan's times; any tree of float32 arrays `[*b L n]`.
        plan: solver and times.
        record: whether to keep the states at all of the plan's times.
    """

    def velocity(t: Float[Array, ""], x: PyTree) -> PyTree:
        def moved(x_1: Array, x_t: Array) -> Array:
            return gaussian.velocity(x_1, x_t, jnp.broadcast_to(t, x_t.shape[:-1]))

        return jax.tree.map(moved, belief(t, x), x)

    if plan.solver == ode.RENOISE:
        return renoise.solve(belief, corrupt, state, plan.times, record)
    return ode.solve(velocity, state, plan, record)


def keys_of_step(keys: Key[Array, "B"], step: Int[Array, ""]) -> Key[Array, "B"]:
    """Each row's key for a step's noise: neither of the two that `split` makes of it."""
    # What is folded in must not be 0 or 1: these are they.
    return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 2), step))(keys)
