"""How good a model is: held-out losses by clock, and figures of merit of what it makes."""

import dataclasses
import itertools
import json
from collections.abc import Mapping

from etils import epath

from oneflow_jax import generate
from oneflow_jax.build import sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.evaluation import base as base_lib
from oneflow_jax.runtime import distributed, metric_writer, sharding, workdir
from oneflow_jax.samplers import guidance, time_grids
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import export, train_state
from oneflow_jax.viewer import contact_sheet, plots

GRID_COLUMNS = 8
"""Cells in a row of the contact sheets."""

TIME_BINS = 16
"""Stretches of the clock in which a learned grid's steps are spread evenly."""


def run(system: system_lib.System, folder: epath.Path) -> dict[str, float]:
    """Evaluates the newest checkpoint in `folder`; prints the figures, and leaves them there.

    Writes `evaluation.json`, figure -> value, with the number of forward passes after an @; a
    contact sheet of what was scored, where there is something to see; and, if there are several
    numbers of passes, a plot of the figures against them.

    Raises:
        UserError: there is no checkpoint.
    """
    params = load_ema_params(system, folder)
    with sharding.mesh_context(system.mesh):
        figures = system.losses()(params)
        if likelihood := system.likelihood():
            figures["heldout/nats"] = likelihood(params).mean()
    config = system.config.evaluation
    grid = time_grid(system, params)
    generator = generate.Generator(system, params)
    suite = system_lib.supported_suite(system)
    figures |= suite.constants
    shares: dict[str, float] = {}
    asked = itertools.product(config.passes, suite.tasks)
    to_do = [(n, task) for n, task in asked if affordable_nfe(system, task, n) > 0]
    progress = metric_writer.ProgressBar("evaluating", len(to_do), unit="task")
    for done, (passes, task) in enumerate(to_do, 1):
        plan = task_plan(system, task, passes, grid)
        made = generator(task.prompts, plan, seed=system.config.seed, batch=config.batch)
        score = task.score([document for batch in made for document in batch.documents])
        every = {**score.figures, **score.numbers}
        found = {f"{name}@{passes}": value for name, value in every.items()}
        progress.advance(done)
        progress.report(done, ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
        figures |= found
        shares |= {name: found[name] for name in found if name.split("@")[0] in score.figures}
        if score.cells and distributed.is_primary():
            path = folder / f"{task.name}@{passes}.png"
            contact_sheet.write_contact_sheet(
                path, score.cells, GRID_COLUMNS, f"{system.config.name}: {path.stem}"
            )
    progress.close()
    if len(config.passes) > 1 and suite.tasks and distributed.is_primary():
        plots.plot_lines(
            folder / "evaluation.png", metrics_by_nfe(shares), system.config.name, ylabel="share"
        )
    workdir.write_atomically(
        folder / workdir.EVALUATION, json.dumps(figures, indent=2, sort_keys=True) + "\n"
    )
    return figures


def task_plan(
    system: system_lib.System, task: base_lib.EvalTask, nfe: int, grid_spec: time_grids.GridSpec
) -> SamplingPlan:
    """How to make what a task asks for in at most so many passes, which must be possible."""
    steps = affordable_nfe(system, task, nfe)
    return sampling.eval_plan(system.config, system.paradigm, steps, grid_spec, edit=task.revises)


def affordable_nfe(system: system_lib.System, task: base_lib.EvalTask, nfe: int) -> int:
    """Passes to plan for, so that no more than `nfe` are taken; 0 if that cannot be.

    A picture that is born at the last moment has all of its own time still before it; but where
    words come one after another, passes are those of one picture.
    """
    if not (task.births and system.layout.grows) or system.layout.markers:
        return nfe
    given = system.config.sampling
    least = guidance.nfe_factor(given.guidance, given.text_guidance)
    return nfe // 2 if nfe // 2 >= least else 0


def check_prompts(system: system_lib.System) -> None:
    """Lays out what evaluation will ask for, so that what does not fit is told before training.

    Raises:
        UserError: a document is too long for the canvas.
    """
    for task in system_lib.supported_suite(system).tasks:
        for document in task.prompts:
            generate.prompt_row(system.layout, document, edit=task.revises)


def time_grid(system: system_lib.System, params: PyTree) -> time_grids.GridSpec:
    """The grid that the configuration names; measured on training documents if to be learned.

    It follows the loss in words of documents that are shown at one time as a whole.
    """
    if system.config.sampling.grid != sampling.LEARNED_GRID:
        return system.config.sampling.grid
    in_step = dataclasses.replace(system, paradigm=system.paradigm.in_step)
    losses, words = in_step.losses("train"), in_step.paradigm.weights[0][0]
    # At t=1 itself nothing is left to be asked.
    shown = [*(n / TIME_BINS for n in range(TIME_BINS)), 1 - 1 / (4 * TIME_BINS)]
    with sharding.mesh_context(system.mesh):
        found = {t: losses.at(params, t)[words] for t in shown}
    # Where no word happened to be asked for there is nothing to go by.
    known = {t: float(term.compute()) for t, term in found.items() if term.count > 0}
    return time_grids.loss_adaptive_grid(list(known), list(known.values()))


def load_ema_params(system: system_lib.System, folder: epath.Path) -> PyTree:
    """The newest averaged parameters in `folder`, that of a run or of a release."""
    return export.load_ema_params(folder, train_state.abstract_state(system).ema)


def metrics_by_nfe(metrics: Mapping[str, float]) -> dict[str, list[tuple[int, float]]]:
    """Figures that bear a number of forward passes, by name: (passes, value) in order."""
    points: dict[str, list[tuple[int, float]]] = {}
    for name, value in metrics.items():
        if "@" in name:
            name, passes = name.split("@")
            points.setdefault(name, []).append((int(passes), value))
    return {name: sorted(points[name]) for name in sorted(points)}


def format_table(metrics: Mapping[str, float]) -> str:
    """The figures for people: a row for each name, a column for each number of passes."""
    by_name = metrics_by_nfe(metrics)
    if not by_name:
        return "Held-out losses alone: nothing is known of what these documents ought to say."
    passes = sorted({n for points in by_name.values() for n, _ in points})
    lines = ["passes".ljust(20) + "".join(f"{n:>8}" for n in passes)]
    lines += [
        name.ljust(20) + "".join(_format_cell(dict(points).get(n)) for n in passes)
        for name, points in by_name.items()
    ]
    return "\n".join(lines)


def _format_cell(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.3f}"
