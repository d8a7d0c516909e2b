"""Renoising sampler: corrupt the x1 prediction to the next time with fresh noise, without an ODE.

    x_s = (1 - s) x_0' + s x̂_1(x_t, t)        x_0' is fresh noise in each step

This is the loop of multistep consistency sampling (Song et al., Consistency Models, 2023, algorithm
1) with the x1 prediction in place of the consistency function. It is also DDIM (Song, Meng and
Ermon, 2021, equation 7) with the largest possible sigma, so that all noise is fresh.

Only the x1 prediction carries over from one step to the next, and each step adds new noise to it.
Renoising has a bias, because x̂_1 is an expectation and not a sample. For any number of steps, it
samples a distribution that is sharper than that of the data, like token sampling at a low
temperature. The ODE does not have this bias.
"""

from collections.abc import Callable

from oneflow_jax.samplers import ode, plan_values
from oneflow_jax.shapes import Array, Float, Int, PyTree

PredictX1Fn = Callable[[Float[Array, ""], PyTree], PyTree]
"""Function from (t, x_t) to the x1 prediction x̂_1, or to the flow map from t to 1."""

CorruptFn = Callable[[Int[Array, ""], Float[Array, ""], PyTree], PyTree]
"""Function from (step number, counted from 1; time s; x̂_1) to x_s, with fresh noise each step."""


def make_stepper(
    predict_x1: PredictX1Fn, corrupt: CorruptFn, times: plan_values.Times
) -> ode.Stepper:
    """Return the steps of renoising.

    Args:
        predict_x1: function that returns the x1 prediction of a state.
        corrupt: function that corrupts the x1 prediction to the next time.
        times: start times of the intervals, increasing.
    """
    at, _ = plan_values.step_times(times)

    def step(number: Int[Array, ""], carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        x, _ = carry
        return corrupt(number + 1, at[number + 1], predict_x1(at[number], x)), None

    return ode.Stepper(lambda x: (x, None), step)
