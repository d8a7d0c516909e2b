"""How to sample, from the configuration."""

import ml_collections

from oneflow_jax.errors import UserError
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import ode, time_grids, token_sampling

LEARNED = "learned"
"""The grid that is measured, not given: see `evaluate.spacing`."""


def check(config: ml_collections.ConfigDict, paradigm: base.Paradigm) -> None:
    """Makes every plan that may be asked for, so that mistakes are told before training.

    Raises:
        UserError: a value is wrong, or not for this paradigm.
    """
    given = config.sampling.grid
    spacing = "uniform" if given == LEARNED else given
    sampling(config, paradigm, spacing)
    if paradigm.revises:
        sampling(config, paradigm, spacing, revise=True)
    for passes in config.evaluation.passes:
        evaluation(config, paradigm, passes, spacing)


def sampling(
    config: ml_collections.ConfigDict,
    paradigm: base.Paradigm,
    spacing: time_grids.Spacing,
    *,
    revise: bool = False,
    record: bool = True,
) -> base.Plan:
    """For people to look at: all moments on the way are kept, unless `record` is False.

    Raises:
        UserError: a value is wrong, or not for this paradigm.
    """
    plan = _plan(config, config.sampling.steps, spacing, revise=revise, record=record)
    paradigm.check(plan)
    return plan


def evaluation(
    config: ml_collections.ConfigDict,
    paradigm: base.Paradigm,
    passes: int,
    spacing: time_grids.Spacing,
    *,
    revise: bool = False,
) -> base.Plan:
    """With at most so many forward passes; all else as configured for sampling.

    A solver of several stages, or guidance, may not come out at exactly as many.

    Raises:
        UserError: not even one step takes so few, or a value is wrong.
    """
    if not isinstance(passes, int):
        raise UserError(f"evaluation.passes={passes!r} must be whole numbers, as in '(4,16)'.")
    for steps in range(passes, 0, -1):
        plan = _plan(config, steps, spacing, revise=revise, record=False)
        if paradigm.evaluations(plan) <= passes:
            paradigm.check(plan)
            return plan
    given = config.sampling
    raise UserError(
        f"evaluation.passes={passes}: one step of sampling.solver={given.solver!r} with "
        f"sampling.guidance={given.guidance} and text_guidance={given.text_guidance} takes "
        "more forward passes."
    )


def _plan(
    config: ml_collections.ConfigDict,
    steps: int,
    spacing: time_grids.Spacing,
    *,
    revise: bool,
    record: bool,
) -> base.Plan:
    given = config.sampling
    if not 0 < given.start < 1:
        raise UserError(f"sampling.start={given.start} must be above 0 and below 1.")
    return base.Plan(
        ode.schedule(given.solver, steps, spacing, given.start if revise else 0.0),
        guidance=float(given.guidance),
        text_guidance=float(given.text_guidance),
        words=token_sampling.Choice(
            temperature=float(given.temperature),
            top_p=float(given.top_p),
            top_k=int(given.top_k),
            order=given.order,
            remask=float(given.remask),
        ),
        record=record,
    )
