"""ODE solvers from diffrax for the flow, on arbitrary time grids.

    dx/dt = v(x, t) = (x̂_1(x, t) - x) / (1 - t)

v is 0/0 at t = 1, so no solver may evaluate it there. The solver integrates all intervals except
the last one. For the last interval, the caller takes x̂_1 as the result; this equals an Euler step,
since x + (1 - t) v = x̂_1.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.errors import check_fraction, check_one_of
from oneflow_jax.samplers import time_grids
from oneflow_jax.shapes import Array, Float, PyTree

if TYPE_CHECKING:
    import diffrax  # A slow import, which runs without sampling do not need.

SOLVERS = ("euler", "heun", "midpoint", "tsit5", "dopri5")
"""Names of diffrax's solvers, in lower case."""

RENOISE = "renoise"
"""Value of `sampling.solver` that selects renoising instead of an ODE solver; see `renoise`."""

FLOW_MAP_SOLVERS = ("jump", "consistency")
"""Values of `sampling.solver` for models with a flow map (`flows.flow_map`).

"jump" evaluates the flow map from each time to the next. "consistency" is renoising with the flow
map to t = 1 in place of the x1 prediction.
"""

NAMES = (*SOLVERS, RENOISE, *FLOW_MAP_SOLVERS)
"""All values of `sampling.solver`."""


@dataclasses.dataclass(frozen=True)
class SolverSchedule:
    """Solver and times of its steps; hashable, so it can be a static argument of jit.

    Attributes:
        solver: one of `NAMES`.
        times: start times of the intervals, increasing and below 1; the last interval ends at 1.
    """

    solver: str
    times: tuple[float, ...]

    @property
    def nfe(self) -> int:
        """NFE without guidance.

        A solver that reuses the last stage of a step as the first stage of the next (FSAL) takes
        one evaluation less per step, and one more at the start.
        """
        steps = len(self.times) - 1
        if self.solver in ("euler", RENOISE, *FLOW_MAP_SOLVERS) or steps == 0:
            return steps + 1
        tableau = _make_solver(self.solver).tableau
        return (
            steps * (tableau.num_stages - 1) + 1 if tableau.fsal else steps * tableau.num_stages
        ) + 1


def make_schedule(
    solver: str, num_steps: int, grid: time_grids.GridSpec = "uniform", start: float = 0.0
) -> SolverSchedule:
    """Create a schedule from `start` to 1.

    Args:
        solver: one of `NAMES`.
        num_steps: number of intervals; ignored if `grid` is a tuple of times.
        grid: spacing of the intervals of [0, 1], or their start times as a tuple; in both cases
            the schedule maps [0, 1] linearly to [`start`, 1].
        start: time at which sampling starts.

    Raises:
        UserError: the solver or grid is unknown, `num_steps` is below 1, `start` is outside
            [0, 1), or the times do not increase from 0 to below 1.
    """
    check_one_of("sampling.solver", solver, NAMES)
    check_fraction("sampling.edit_start", start, allow_one=False)
    times = time_grids.step_times(grid, num_steps)
    return SolverSchedule(solver, tuple(float(start + (1 - start) * t) for t in times))


@flax.struct.dataclass
class Solution:
    """Solution of the flow up to the last interval.

    Attributes:
        final: state at the last time of the schedule, one interval before t = 1.
        times: times of the schedule.
        trajectory: states at `times`, stacked along a new first axis; None if not requested.
    """

    final: PyTree
    times: Float[Array, "T"]
    trajectory: PyTree | None


def solve(
    velocity: Callable[[Float[Array, ""], PyTree], PyTree],
    state: PyTree,
    schedule: SolverSchedule,
    return_trajectory: bool = False,
) -> Solution:
    """Integrate dx/dt = velocity(t, x) over all intervals of `schedule` except the last.

    The state may be sharded over a mesh with Auto axes; its sharding is preserved.

    Args:
        velocity: function that returns dx/dt, with the tree structure of `state`.
        state: x at the first time of the schedule; any tree of float32 arrays.
        schedule: times, and a solver from `SOLVERS`.
        return_trajectory: whether to return the states at all times of the schedule.
    """
    import diffrax

    times = jnp.asarray(schedule.times, jnp.float32)
    if len(schedule.times) == 1:
        path = jax.tree.map(lambda x: x[None], state) if return_trajectory else None
        return Solution(final=state, times=times, trajectory=path)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, _: velocity(t, x)),
        _make_solver(schedule.solver),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=state,
        stepsize_controller=diffrax.StepTo(ts=times),
        saveat=diffrax.SaveAt(ts=times) if return_trajectory else diffrax.SaveAt(t1=True),
        max_steps=len(schedule.times) - 1,
        # throw=True would replicate the solution on every device of the mesh.
        throw=False,
    )
    last = jax.tree.map(lambda x: x[-1], solution.ys)
    return Solution(final=last, times=times, trajectory=solution.ys if return_trajectory else None)


def _make_solver(name: str) -> "diffrax.AbstractSolver":
    import diffrax

    return getattr(diffrax, name.capitalize())()
