"""From noise to data by the way that a schedule names: a solver of the ODE, or renoising."""

from collections.abc import Callable

import jax

from oneflow_jax.samplers import ode, renoising
from oneflow_jax.shapes import Array, Float, Int, Key, PyTree


def solve(
    belief: Callable[[Float[Array, ""], PyTree], PyTree],
    corrupt: Callable[[Int[Array, ""], Float[Array, ""], PyTree], PyTree],
    state: PyTree,
    plan: ode.Schedule,
    record: bool = False,
) -> ode.Solution:
    """Carries `state` through all intervals of `plan` but the last.

    Args:
        belief: from t and x_t to x̂_1, the clean state that the network believes in.
        corrupt: from the number of a step, s and x̂_1 to x_s, with noise of its own in each step;
            a solver of the ODE does not ask for it.
        state: x at the first of the plan's times; any tree of float32 arrays.
        plan: solver and times.
        record: whether to keep the states at all of the plan's times.
    """

    def velocity(t: Float[Array, ""], x: PyTree) -> PyTree:
        return jax.tree.map(lambda x_1, x_t: (x_1 - x_t) / (1 - t), belief(t, x), x)

    if plan.solver == ode.RENOISE:
        return renoising.solve(belief, corrupt, state, plan.times, record)
    return ode.solve(velocity, state, plan, record)


def keys_of_step(keys: Key[Array, "B"], step: Int[Array, ""]) -> Key[Array, "B"]:
    """Each row's key for a step's noise: neither of the two that `split` makes of it."""
    # What is folded in must not be 0 or 1: these are they.
    return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 2), step))(keys)
