"""Solving the flow's ODE with diffrax, on any grid of times.

    dx/dt = v(x, t) = (x̂_1(x, t) - x) / (1 - t)

v is 0/0 at t=1. So the solver runs over all intervals but the last, and the last is closed by
x̂_1 itself, which is what Euler's method would do there: x + (1 - t) v = x̂_1. No solver, of
whatever order, is ever asked for v at t=1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.errors import UserError
from oneflow_jax.samplers import time_grids
from oneflow_jax.shapes import Array, Float, PyTree

SOLVERS: dict[str, Callable[[], Any]] = {
    "euler": diffrax.Euler,
    "heun": diffrax.Heun,
    "midpoint": diffrax.Midpoint,
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
}

RENOISE = "renoise"
"""Another way along the path, which is no solver of its ODE: see `paths`."""


@dataclasses.dataclass(frozen=True)
class SolverSchedule:
    """How to get from noise to data; hashable, so static under jit.

    Attributes:
        solver: one of `SOLVERS`, or `RENOISE`.
        times: where the intervals begin, rising from the start to below 1; the last ends at 1.
    """

    solver: str
    times: tuple[float, ...]

    @property
    def evaluations(self) -> int:
        """NFE: how often the network is asked, for one pass without guidance.

        A solver that reuses its last stage (FSAL) pays for one stage less a step, and one more
        at the start.
        """
        steps = len(self.times) - 1
        if self.solver in ("euler", RENOISE) or steps == 0:
            return steps + 1
        tableau = SOLVERS[self.solver]().tableau
        return (
            steps * (tableau.num_stages - 1) + 1 if tableau.fsal else steps * tableau.num_stages
        ) + 1


def make_schedule(
    solver: str, num_steps: int, grid: time_grids.GridSpec = "uniform", start: float = 0.0
) -> SolverSchedule:
    """The schedule with `num_steps` intervals from `start` to 1, spaced by a grid or as given.

    Raises:
        UserError: no such solver or grid, fewer than one step, a start outside [0, 1), or times
            that do not rise from 0 to below 1.
    """
    if solver not in (*SOLVERS, RENOISE):
        raise UserError(f"sampling.solver={solver!r} is none of {', '.join(SOLVERS)}, {RENOISE}.")
    if not 0 <= start < 1:
        raise UserError(f"sampling.start={start} must be at least 0 and below 1.")
    times = time_grids.step_times(grid, num_steps)
    return SolverSchedule(solver, tuple(float(start + (1 - start) * t) for t in times))


@flax.struct.dataclass
class Solution:
    """Where the flow went.

    Attributes:
        last: the state at the last of the schedule's times, one interval before t=1.
        times: the moments that `path` shows.
        path: states at `times`, along a new first axis; None unless asked for.
    """

    last: PyTree
    times: Float[Array, "T"]
    path: PyTree | None


def solve(
    velocity: Callable[[Float[Array, ""], PyTree], PyTree],
    state: PyTree,
    schedule: SolverSchedule,
    return_trajectory: bool = False,
) -> Solution:
    """Carry `state` along `velocity(t, state)` through all intervals of `schedule` but the last.

    The state may be sharded over a mesh with Auto axes; it stays so.

    Args:
        velocity: dx/dt, of the structure of `state`.
        state: x at the first of the plan's times; any tree of float32 arrays.
        schedule: solver, one of `SOLVERS`, and times.
        return_trajectory: whether to keep the states at all of the plan's times.
    """
    times = jnp.asarray(schedule.times, jnp.float32)
    if len(schedule.times) == 1:
        path = jax.tree.map(lambda x: x[None], state) if return_trajectory else None
        return Solution(last=state, times=times, path=path)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, _: velocity(t, x)),
        SOLVERS[schedule.solver](),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=state,
        stepsize_controller=diffrax.StepTo(ts=times),
        saveat=diffrax.SaveAt(ts=times) if return_trajectory else diffrax.SaveAt(t1=True),
        max_steps=len(schedule.times) - 1,
        # With throw=True the solution comes back replicated on every device of the mesh.
        throw=False,
    )
    last = jax.tree.map(lambda x: x[-1], solution.ys)
    return Solution(last=last, times=times, path=solution.ys if return_trajectory else None)
