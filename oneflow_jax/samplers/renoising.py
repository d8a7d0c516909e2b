"""Along the flow's path without its ODE: what is believed is corrupted anew, to a later time.

    x_s = (1 - s) x_0' + s x̂_1(x_t, t)        x_0' is other noise in each step

It is the corruption of training, done to the belief in place of the clean document: multistep
sampling of Song et al., Consistency Models (2023), algorithm 1; the non-Markovian process of Song
et al., DDIM (2021), equation 7, with sigma as large as it can be. A solver of the ODE keeps the
noise that it began with, in which a hasty guess leaves its trace; here a slot remembers nothing but
what is believed of it, and each step looks at that under noise that it has not seen.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from oneflow_jax.samplers import ode
from oneflow_jax.shapes import Array, Float, Int, PyTree

Belief = Callable[[Float[Array, ""], PyTree], PyTree]
"""From t and x_t to x̂_1."""

Corrupt = Callable[[Int[Array, ""], Float[Array, ""], PyTree], PyTree]
"""From the number of the step, s and x̂_1 to x_s."""


def solve(
    belief: Belief, corrupt: Corrupt, state: PyTree, plan: ode.Schedule, record: bool = False
) -> ode.Solution:
    """Carries `state` through all intervals of `plan` but the last, by whichever way it names.

    Args:
        belief: the clean state that the network believes in.
        corrupt: that at another time, with noise of its own in each step; unless the plan renoises,
            it is not asked.
        state: x at the first of the plan's times; any tree of float32 arrays.
        plan: solver and times.
        record: whether to keep the states at all of the plan's times.
    """
    if plan.solver != ode.RENOISE:
        return ode.solve(lambda t, x: _velocity(belief(t, x), x, t), state, plan, record)
    times = jnp.asarray(plan.times, jnp.float32)
    moves = (jnp.arange(1, len(plan.times)), times[:-1], times[1:])

    def step(x: PyTree, move: tuple[Array, Array, Array]) -> tuple[PyTree, PyTree]:
        number, t, s = move
        return corrupt(number, s, belief(t, x)), x if record else None

    last, path = jax.lax.scan(step, state, moves)
    if record:
        path = jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), path, last)
    return ode.Solution(last=last, times=times, path=path)


def _velocity(x_1: PyTree, x_t: PyTree, t: Float[Array, ""]) -> PyTree:
    return jax.tree.map(lambda end, x: (end - x) / (1 - t), x_1, x_t)
