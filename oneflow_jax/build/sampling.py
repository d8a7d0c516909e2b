"""How to sample, from the configuration."""

import ml_collections

from oneflow_jax.errors import UserError
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import ode, time_grids, token_sampling
from oneflow_jax.samplers.base import SamplingPlan

LEARNED_GRID = "learned"
"""The grid that is measured, not given: see `evaluate.spacing`."""


def validate(config: ml_collections.ConfigDict, paradigm: base.Paradigm) -> None:
    """Makes every plan that may be asked for, so that mistakes are told before training.

    Raises:
        UserError: a value is wrong, or not for this paradigm.
    """
    given = config.sampling.grid
    spacing = "uniform" if given == LEARNED_GRID else given
    sampling_plan(config, paradigm, spacing)
    if paradigm.revises:
        sampling_plan(config, paradigm, spacing, edit=True)
    for passes in config.evaluation.passes:
        eval_plan(config, paradigm, passes, spacing)


def sampling_plan(
    config: ml_collections.ConfigDict,
    paradigm: base.Paradigm,
    grid_spec: time_grids.GridSpec,
    *,
    edit: bool = False,
    return_trajectory: bool = True,
) -> SamplingPlan:
    """For people to look at: all moments on the way are kept, unless `return_trajectory` is False.

    Raises:
        UserError: a value is wrong, or not for this paradigm.
    """
    plan = _make_plan(
        config, config.sampling.steps, grid_spec, edit=edit, return_trajectory=return_trajectory
    )
    paradigm.check(plan)
    return plan


def eval_plan(
    config: ml_collections.ConfigDict,
    paradigm: base.Paradigm,
    nfe: int,
    grid_spec: time_grids.GridSpec,
    *,
    edit: bool = False,
) -> SamplingPlan:
    """With at most so many forward passes; all else as configured for sampling.

    A solver of several stages, or guidance, may not come out at exactly as many.

    Raises:
        UserError: not even one step takes so few, or a value is wrong.
    """
    if not isinstance(nfe, int):
        raise UserError(f"evaluation.passes={nfe!r} must be whole numbers, as in '(4,16)'.")
    for steps in range(nfe, 0, -1):
        plan = _make_plan(config, steps, grid_spec, edit=edit, return_trajectory=False)
        if paradigm.evaluations(plan) <= nfe:
            paradigm.check(plan)
            return plan
    given = config.sampling
    raise UserError(
        f"evaluation.passes={nfe}: one step of sampling.solver={given.solver!r} with "
        f"sampling.guidance={given.guidance} and text_guidance={given.text_guidance} takes "
        "more forward passes."
    )


def _make_plan(
    config: ml_collections.ConfigDict,
    steps: int,
    grid_spec: time_grids.GridSpec,
    *,
    edit: bool,
    return_trajectory: bool,
) -> SamplingPlan:
    given = config.sampling
    if not 0 < given.start < 1:
        raise UserError(f"sampling.start={given.start} must be above 0 and below 1.")
    return SamplingPlan(
        ode.make_schedule(given.solver, steps, grid_spec, given.start if edit else 0.0),
        guidance=float(given.guidance),
        text_guidance=float(given.text_guidance),
        words=token_sampling.TokenSampling(
            temperature=float(given.temperature),
            top_p=float(given.top_p),
            top_k=int(given.top_k),
            order=given.order,
            remask=float(given.remask),
        ),
        record=return_trajectory,
    )
