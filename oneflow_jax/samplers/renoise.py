"""From noise to data without an ODE: what is believed is corrupted anew, to a later time.

    x_s = (1 - s) x_0' + s x̂_1(x_t, t)        x_0' is other noise in each step

The loop of multistep sampling in Song et al., Consistency Models (2023), algorithm 1, with the
expected clean state in place of a consistency function; or DDIM (Song, Meng and Ermon, 2021,
equation 7, with a prediction for x_0) whose sigma is as large as it can be, so that all noise is
fresh. A slot remembers nothing but what is believed of it, and each step looks at that under noise
that it has not seen. The price: an expectation is taken for a clean state, so that x_s is nearer to
what is likely than the path is. However many the steps, this does not sample the data's
distribution but a sharper one, as words do that are drawn at a low temperature; the ODE would.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from oneflow_jax.samplers import ode
from oneflow_jax.shapes import Array, Float, Int, PyTree

PredictX1Fn = Callable[[Float[Array, ""], PyTree], PyTree]
"""From t and x_t to x̂_1, the clean state that the network believes in."""

CorruptFn = Callable[[Int[Array, ""], Float[Array, ""], PyTree], PyTree]
"""From the number of a step, 1 and up, s and x̂_1 to x_s, with noise of its own in each step."""


def solve(
    predict_x1: PredictX1Fn,
    corrupt: CorruptFn,
    state: PyTree,
    times: tuple[float, ...],
    return_trajectory: bool = False,
) -> ode.Solution:
    """Carries `state` through all intervals but the last.

    Args:
        predict_x1: what the network makes of a state.
        corrupt: takes that to the next time.
        state: x at the first of the times; any tree of float32 arrays.
        times: where the intervals begin, rising.
        return_trajectory: whether to keep the states at all of the times.
    """
    at = jnp.asarray(times, jnp.float32)
    moves = (jnp.arange(1, len(times)), at[:-1], at[1:])

    def step(x: PyTree, move: tuple[Array, Array, Array]) -> tuple[PyTree, PyTree]:
        number, t, s = move
        return corrupt(number, s, predict_x1(t, x)), x if return_trajectory else None

    last, path = jax.lax.scan(step, state, moves)
    if return_trajectory:
        path = jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), path, last)
    return ode.Solution(last=last, times=at, path=path)
