"""ODE solvers from diffrax for the flow, on arbitrary time grids.

    dx/dt = v(x, t) = (x̂_1(x, t) - x) / (1 - t)

v is 0/0 at t = 1, so no solver may evaluate it there. The solver integrates all intervals except
the last one. For the last interval, the caller takes x̂_1 as the result; this equals an Euler step,
since x + (1 - t) v = x̂_1.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax

from oneflow_jax.errors import check_fraction, check_one_of
from oneflow_jax.samplers import plan_values, time_grids
from oneflow_jax.shapes import Array, Float, Int, PyTree

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

RENOISING_SOLVERS = (RENOISE, "consistency")
"""Values of `sampling.solver` that corrupt a prediction with fresh noise in each step."""

NAMES = (*SOLVERS, RENOISE, *FLOW_MAP_SOLVERS)
"""All values of `sampling.solver`."""


@plan_values.register_plan(arguments=("times",))
@dataclasses.dataclass(frozen=True)
class SolverSchedule:
    """Solver and times of its steps; see `plan_values` for what a compiled program depends on.

    Attributes:
        solver: one of `NAMES`.
        times: start times of the intervals, increasing and below 1; the last interval ends at 1.
        is_edit: whether the first time is above 0, at which a finished document is edited.
    """

    solver: str
    times: plan_values.Times
    is_edit: bool = False

    @property
    def nfe(self) -> int | Int[Array, ""]:
        """NFE without guidance; an array inside a compiled program whose argument is the plan.

        A solver that reuses the last stage of a step as the first stage of the next (FSAL) takes
        one evaluation less per step, and one more at the start.
        """
        steps = plan_values.count_steps(self.times) - 1
        if self.solver in ("euler", RENOISE, *FLOW_MAP_SOLVERS):
            return steps + 1
        tableau = _make_solver(self.solver).tableau
        if tableau.fsal:
            return steps * (tableau.num_stages - 1) + 1 * (steps > 0) + 1
        return steps * tableau.num_stages + 1


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
    times = tuple(float(start + (1 - start) * t) for t in times)
    return SolverSchedule(solver, times, is_edit=start > 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Stepper:
    """The steps of a solver.

    Attributes:
        init: function from the state at the first time to (state, solver state).
        step: function from the number of an interval, counted from 0, and (state, solver state) at
            its start to these at its end.
    """

    init: Callable[[PyTree], tuple[PyTree, PyTree]]
    step: Callable[[Int[Array, ""], tuple[PyTree, PyTree]], tuple[PyTree, PyTree]]


def make_stepper(
    velocity: Callable[[Float[Array, ""], PyTree], PyTree], schedule: SolverSchedule
) -> Stepper:
    """Return the steps that integrate dx/dt = velocity(t, x).

    The state may be sharded over a mesh with Auto axes; its sharding is preserved.

    Args:
        velocity: function that returns dx/dt, with the tree structure of the state.
        schedule: times, and a solver from `SOLVERS`.
    """
    import diffrax

    times, count = plan_values.step_times(schedule.times)
    # `diffrax.diffeqsolve` would check the times inside the program, with callbacks to Python: JAX
    # stores no program with callbacks in its compilation cache. `make_schedule` checks the times.
    term = diffrax.ODETerm(lambda t, x, _: velocity(t, x))
    solver = _make_solver(schedule.solver)

    def init(x: PyTree) -> tuple[PyTree, PyTree]:
        if isinstance(count, int) and count == 1:  # No interval comes before the last one.
            return x, None
        return x, solver.init(term, times[0], times[1], x, None)

    def step(number: Int[Array, ""], carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        x, solver_state = carry
        interval = times[number], times[number + 1]
        end, _, _, solver_state, _ = solver.step(
            term, *interval, x, None, solver_state, made_jump=False
        )
        return end, solver_state

    return Stepper(init, step)


def solve(
    stepper: Stepper, state: PyTree, times: plan_values.Times
) -> tuple[PyTree, Float[Array, ""]]:
    """Take the steps of all intervals except the last.

    Args:
        stepper: the steps of the solver.
        state: x at the first time; any tree of float32 arrays.
        times: start times of the intervals, increasing.

    Returns:
        The state at the start of the last interval, and the time there.
    """
    values, count = plan_values.step_times(times)
    carry = stepper.init(state)
    if not isinstance(count, int) or count > 1:  # A loop without iterations would be compiled, too.
        carry = jax.lax.fori_loop(0, count - 1, stepper.step, carry)
    return carry[0], values[count - 1]


def _make_solver(name: str) -> "diffrax.AbstractSolver":
    import diffrax

    return getattr(diffrax, name.capitalize())()
