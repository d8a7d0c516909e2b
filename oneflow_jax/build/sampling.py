"""Builders of sampling plans from a configuration."""

import ml_collections

from oneflow_jax.errors import UserError
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import ode, time_grids, token_sampling
from oneflow_jax.samplers.base import SamplingPlan

LEARNED_GRID = "learned"
"""Name of the time grid that is estimated from the model; see `evaluate.time_grid`."""


def validate(config: ml_collections.ConfigDict, paradigm: base.Paradigm) -> None:
    """Build every plan that sampling and evaluation need, so that errors appear before training.

    Raises:
        UserError: a value is wrong or not supported by this paradigm.
    """
    solver = config.sampling.solver
    if solver in ode.FLOW_MAP_SOLVERS and not config.paradigm.flow_map:
        raise UserError(
            f"sampling.solver={solver!r}: it needs a model that was trained with "
            "paradigm.flow_map=True (docs/flow_map.md). Choose another solver."
        )
    time_grid = config.sampling.time_grid
    spacing = "uniform" if time_grid == LEARNED_GRID else time_grid
    sampling_plan(config, paradigm, spacing)
    if paradigm.supports_editing:
        sampling_plan(config, paradigm, spacing, edit=True)
    for nfe in config.evaluation.nfe:
        eval_plan(config, paradigm, nfe, spacing)


def sampling_plan(
    config: ml_collections.ConfigDict,
    paradigm: base.Paradigm,
    grid_spec: time_grids.GridSpec,
    *,
    edit: bool = False,
) -> SamplingPlan:
    """Build the configured plan for sampling.

    Args:
        config: the run's configuration.
        paradigm: the paradigm that samples.
        grid_spec: the time grid.
        edit: whether to edit a document instead of starting from noise.

    Raises:
        UserError: a value is wrong or not supported by this paradigm.
    """
    plan = _make_plan(config, config.sampling.steps, grid_spec, edit=edit)
    paradigm.validate(plan)
    return plan


def eval_plan(
    config: ml_collections.ConfigDict,
    paradigm: base.Paradigm,
    nfe: int,
    grid_spec: time_grids.GridSpec,
    *,
    edit: bool = False,
) -> SamplingPlan:
    """Build the plan with the most steps whose NFE is at most `nfe`.

    All other settings are those of `config.sampling`. The plan's NFE may be below `nfe`, because a
    step with a multi-stage solver or with guidance takes several forward passes.

    Args:
        config: the run's configuration.
        paradigm: the paradigm that samples.
        nfe: maximum number of forward passes for one document.
        grid_spec: the time grid.
        edit: whether to edit a document instead of starting from noise.

    Raises:
        UserError: a single step takes more forward passes than `nfe`, or a value is wrong.
    """
    for steps in range(nfe, 0, -1):
        plan = _make_plan(config, steps, grid_spec, edit=edit)
        if paradigm.nfe(plan) <= nfe:
            paradigm.validate(plan)
            return plan
    options = config.sampling
    raise UserError(
        f"evaluation.nfe={nfe}: one step of sampling.solver={options.solver!r} with "
        f"sampling.image_guidance_scale={options.image_guidance_scale} and "
        f"text_guidance_scale={options.text_guidance_scale} takes more forward passes than this. "
        "Increase evaluation.nfe."
    )


def _make_plan(
    config: ml_collections.ConfigDict,
    steps: int,
    grid_spec: time_grids.GridSpec,
    *,
    edit: bool,
) -> SamplingPlan:
    options = config.sampling
    return SamplingPlan(
        ode.make_schedule(options.solver, steps, grid_spec, options.edit_start if edit else 0.0),
        image_guidance_scale=float(options.image_guidance_scale),
        text_guidance_scale=float(options.text_guidance_scale),
        confidence_threshold=float(options.confidence_threshold),
        token_sampling=token_sampling.TokenSampling(
            temperature=float(options.temperature),
            top_p=float(options.top_p),
            top_k=int(options.top_k),
            unmask_order=options.unmask_order,
            remask_prob=float(options.remask_prob),
        ),
    )
