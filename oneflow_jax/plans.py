"""How to sample, from the configuration."""

import ml_collections

from oneflow_jax.errors import UserError
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import ode, tokens


def sampling(config: ml_collections.ConfigDict, paradigm: base.Paradigm) -> base.Plan:
    """For people to look at: all moments on the way are kept.

    Raises:
        UserError: a value is wrong, or not for this paradigm.
    """
    given = config.sampling
    schedule = ode.schedule(given.solver, given.steps, given.grid, given.start)
    plan = _plan(config, schedule, record=True)
    paradigm.check(plan)
    return plan


def evaluation(
    config: ml_collections.ConfigDict, paradigm: base.Paradigm, passes: int
) -> base.Plan:
    """With so many forward passes; all else as configured for sampling.

    Raises:
        UserError: no number of steps takes exactly that many passes, or a value is wrong.
    """
    given = config.sampling
    if not isinstance(passes, int):
        raise UserError(f"evaluation.passes={passes!r} must be whole numbers, as in '(4,16)'.")
    for steps in range(1, passes + 1):
        plan = _plan(config, ode.schedule(given.solver, steps, given.grid), record=False)
        if paradigm.evaluations(plan) == passes:
            paradigm.check(plan)
            return plan
    raise UserError(
        f"evaluation.passes={passes}: no number of steps of sampling.solver={given.solver!r} with "
        f"sampling.guidance={given.guidance} and text_guidance={given.text_guidance} takes exactly "
        "that many forward passes."
    )


def _plan(config: ml_collections.ConfigDict, schedule: ode.Schedule, *, record: bool) -> base.Plan:
    given = config.sampling
    return base.Plan(
        schedule,
        guidance=float(given.guidance),
        text_guidance=float(given.text_guidance),
        words=tokens.Choice(
            temperature=float(given.temperature),
            top_p=float(given.top_p),
            order=given.order,
            remask=float(given.remask),
        ),
        record=record,
    )
