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
from oneflow_jax.paradigms import base
from oneflow_jax.runtime import distributed, metric_writer, sharding, workdir
from oneflow_jax.samplers import guidance, time_grids
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import export, train_state
from oneflow_jax.viewer import contact_sheet, plots

COLUMNS = 8
"""Cells in a row of the contact sheets."""

CLOCKS = 16
"""Stretches of the clock in which a learned grid's steps are spread evenly."""


def run(system: system_lib.System, folder: epath.Path) -> dict[str, float]:
    """Evaluates the newest checkpoint in `folder`; prints the figures, and leaves them there.

    Writes `evaluation.json`, figure -> value, with the number of forward passes after an @; a
    contact sheet of what was scored, where there is something to see; and, if there are several
    numbers of passes, a plot of the figures against them.

    Raises:
        UserError: there is no checkpoint.
    """
    params = averaged(system, folder)
    with sharding.use(system.mesh):
        figures = system.losses()(params)
        if likelihood := system.likelihood():
            figures["heldout/nats"] = likelihood(params).mean()
    config = system.config.evaluation
    grid = spacing(system, params)
    generator = generate.Generator(system, params)
    suite = system_lib.suite(system)
    figures |= suite.constants
    shares: dict[str, float] = {}
    asked = itertools.product(config.passes, suite.tasks)
    to_do = [(n, task) for n, task in asked if steps_of(system, task, n) > 0]
    progress = metric_writer.Progress("evaluating", len(to_do), unit="task")
    for done, (passes, task) in enumerate(to_do, 1):
        plan = plan_of(system, task, passes, grid)
        made = generator(task.prompts, plan, seed=system.config.seed, batch=config.batch)
        score = task.score([document for batch in made for document in batch.documents])
        every = {**score.figures, **score.numbers}
        found = {f"{name}@{passes}": value for name, value in every.items()}
        progress.advance(done)
        progress.report(done, ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
        figures |= found
        shares |= {name: found[name] for name in found if name.split("@")[0] in score.figures}
        if score.cells and distributed.leads():
            path = folder / f"{task.name}@{passes}.png"
            contact_sheet.contact_sheet(
                path, score.cells, COLUMNS, f"{system.config.name}: {path.stem}"
            )
    progress.close()
    if len(config.passes) > 1 and suite.tasks and distributed.leads():
        plots.lines(folder / "evaluation.png", curves(shares), system.config.name, up="share")
    workdir.write_atomically(
        folder / workdir.EVALUATION, json.dumps(figures, indent=2, sort_keys=True) + "\n"
    )
    return figures


def plan_of(
    system: system_lib.System, task: base_lib.Task, passes: int, grid: time_grids.Spacing
) -> base.Plan:
    """How to make what a task asks for in at most so many passes, which must be possible."""
    steps = steps_of(system, task, passes)
    return sampling.evaluation(system.config, system.paradigm, steps, grid, revise=task.revises)


def steps_of(system: system_lib.System, task: base_lib.Task, passes: int) -> int:
    """Passes to plan for, so that no more than `passes` are taken; 0 if that cannot be.

    A picture that is born at the last moment has all of its own time still before it; but where
    words come one after another, passes are those of one picture.
    """
    if not (task.births and system.layout.grows) or system.layout.markers:
        return passes
    given = system.config.sampling
    least = guidance.passes(given.guidance, given.text_guidance)
    return passes // 2 if passes // 2 >= least else 0


def check_prompts(system: system_lib.System) -> None:
    """Lays out what evaluation will ask for, so that what does not fit is told before training.

    Raises:
        UserError: a document is too long for the canvas.
    """
    for task in system_lib.suite(system).tasks:
        for document in task.prompts:
            generate.row(system.layout, document, revise=task.revises)


def spacing(system: system_lib.System, params: PyTree) -> time_grids.Spacing:
    """The grid that the configuration names; measured on training documents if to be learned.

    It follows the loss in words of documents that are shown at one time as a whole.
    """
    if system.config.sampling.grid != sampling.LEARNED:
        return system.config.sampling.grid
    in_step = dataclasses.replace(system, paradigm=system.paradigm.in_step)
    losses, words = in_step.losses("train"), in_step.paradigm.weights[0][0]
    # At t=1 itself nothing is left to be asked.
    shown = [*(n / CLOCKS for n in range(CLOCKS)), 1 - 1 / (4 * CLOCKS)]
    with sharding.use(system.mesh):
        found = {t: losses.at(params, t)[words] for t in shown}
    # Where no word happened to be asked for there is nothing to go by.
    known = {t: float(term.compute()) for t, term in found.items() if term.count > 0}
    return time_grids.learned(list(known), list(known.values()))


def averaged(system: system_lib.System, folder: epath.Path) -> PyTree:
    """The newest averaged parameters in `folder`, that of a run or of a release."""
    return export.averaged(folder, train_state.abstract(system).ema)


def curves(figures: Mapping[str, float]) -> dict[str, list[tuple[int, float]]]:
    """Figures that bear a number of forward passes, by name: (passes, value) in order."""
    points: dict[str, list[tuple[int, float]]] = {}
    for name, value in figures.items():
        if "@" in name:
            name, passes = name.split("@")
            points.setdefault(name, []).append((int(passes), value))
    return {name: sorted(points[name]) for name in sorted(points)}


def table(figures: Mapping[str, float]) -> str:
    """The figures for people: a row for each name, a column for each number of passes."""
    by_name = curves(figures)
    if not by_name:
        return "Held-out losses alone: nothing is known of what these documents ought to say."
    passes = sorted({n for points in by_name.values() for n, _ in points})
    lines = ["passes".ljust(20) + "".join(f"{n:>8}" for n in passes)]
    lines += [
        name.ljust(20) + "".join(_cell(dict(points).get(n)) for n in passes)
        for name, points in by_name.items()
    ]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.3f}"
