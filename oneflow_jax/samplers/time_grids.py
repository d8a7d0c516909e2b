"""Time grids: the spacing of sampling steps between t = 0 and t = 1."""

from collections.abc import Callable, Sequence

import numpy as np

from oneflow_jax.errors import UserError, check_at_least
from oneflow_jax.flows import text_lead

TimeGrid = Callable[[np.ndarray], np.ndarray]
"""Increasing function from the fraction s of completed steps, 0 to 1, to the time t, 0 to 1."""

GridSpec = str | tuple[float, ...] | TimeGrid
"""A time grid: its name, a `TimeGrid`, or the start times of the steps as a tuple."""

TIME_GRIDS: dict[str, TimeGrid] = {
    "uniform": lambda s: s,
    "cosine": lambda s: 1 - np.cos(0.5 * np.pi * s),
    "sine": lambda s: np.sin(0.5 * np.pi * s),
    "quadratic": lambda s: s**2,
    "cubic": lambda s: s**3,
}
"""Time grids by name: "uniform" has equal steps; "cosine", "quadratic" and "cubic" have small steps
near noise (t = 0), "cubic" the smallest; and "sine" has small steps near data (t = 1)."""

UNIFORM_FRACTION = 0.4
"""Fraction of the steps of a learned grid that are spaced uniformly.

The text loss determines the other steps, but images need steps at other times too. On the digits
data, a fraction of 0.1 is better than 0.4 with 16 steps and much worse with 4 steps.
"""


def step_times(grid_spec: GridSpec, num_steps: int) -> np.ndarray:
    """Return the start times of the steps, from 0 to below 1.

    Raises:
        UserError: the grid is unknown, `num_steps` is below 1, or the times do not increase from 0
            to below 1.
    """
    if isinstance(grid_spec, tuple):
        times = np.asarray(grid_spec, np.float64)
        rising = len(times) > 0 and times[0] == 0 and bool(np.all(np.diff(times) > 0))
        if not rising or times[-1] >= 1:
            raise UserError(
                f"sampling.time_grid={grid_spec}: a tuple must have increasing times, the first "
                "one 0 and the last one below 1."
            )
        return times
    check_at_least("sampling.steps", num_steps, 1)
    if isinstance(grid_spec, str):
        if grid_spec not in TIME_GRIDS:
            raise UserError(
                f"sampling.time_grid={grid_spec!r}: unknown time grid. Use "
                f"{', '.join(TIME_GRIDS)}, learned, or a tuple of times."
            )
        grid_spec = TIME_GRIDS[grid_spec]
    return grid_spec(np.arange(num_steps) / num_steps)


def loss_adaptive_grid(
    times: Sequence[float],
    losses: Sequence[float],
    uniform_fraction: float = UNIFORM_FRACTION,
) -> TimeGrid:
    """Return a grid with many steps at times where the loss L decreases quickly with t.

    One step samples all of its tokens independently of each other. A step of length δ at t
    causes an error of about δ^2 |L'(t)|. The sum of these errors over all steps is minimal if the
    density of steps is proportional to the square root of |L'|.

    Args:
        times: increasing times from 0 to below 1; the last one stands for t = 1.
        losses: cross-entropy per text token at each time, in nats.
        uniform_fraction: fraction of the steps that are spaced uniformly, 0 to 1.
    """
    times = [*times[:-1], 1.0]
    length = np.diff(times)
    # Measured losses are noisy, so use their running minimum, which never increases.
    fall = -np.diff(np.minimum.accumulate(losses))
    weight = np.sqrt(fall * length)
    share = weight / weight.sum() if weight.sum() > 0 else length
    share = (1 - uniform_fraction) * share + uniform_fraction * length
    done = np.concatenate([[0.0], np.cumsum(share)])
    return lambda s: np.interp(s, done / done[-1], times)


def document_times(text_times: Sequence[float], lead: float) -> list[float]:
    """Return the times of documents whose text has these times (`flows.text_lead`)."""
    return text_lead.text_time(np.asarray(text_times), 1 / lead).tolist()


def leading_text_grid(times: Sequence[float], losses: Sequence[float], lead: float) -> TimeGrid:
    """Return a grid in document time for text that is ahead of the images (`flows.text_lead`).

    Half of the steps are at times when the text loss falls. The other half brings the images to the
    times of `loss_adaptive_grid`, because the content of images is decided at about the times at
    which that of text is: with a lead, the text of the document is nearly clean by then.

    Args:
        times: increasing times of the text from 0 to below 1; the last one stands for t = 1.
        losses: cross-entropy per text token at each time, in nats.
        lead: ratio of the odds of the text to those of the images, above 0.
    """
    fractions = np.linspace(0, 1, 4001)
    text = loss_adaptive_grid(times, losses, uniform_fraction=0.0)(fractions)
    images = loss_adaptive_grid(times, losses)(fractions)
    both = np.sort(np.concatenate([text_lead.text_time(text, 1 / lead), images]))
    return lambda s: np.interp(s, np.linspace(0, 1, len(both)), both)
