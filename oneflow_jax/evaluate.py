"""How good a model is: held-out losses by clock, and figures of merit of what it makes."""

import functools
import itertools
import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from etils import epath

from oneflow_jax import build, checkpoint, generate, logs, plans, sharding, step, workdir
from oneflow_jax.data import pipeline
from oneflow_jax.shapes import PyTree
from oneflow_jax.viewer import plots, sheet

COLUMNS = 8
"""Cells in a row of the contact sheets."""


class Losses:
    """Losses of held-out documents, by term and by clock.

    The same documents, the same noise and the same times at every call, so that two calls differ
    by the parameters alone.
    """

    def __init__(self, system: build.System) -> None:
        """Loads one batch of held-out documents."""
        config = system.config
        data = iter(
            pipeline.batches(
                build.source(config, "heldout"),
                system.layout,
                rows=config.batch,
                seed=config.seed,
                workers=0,
                cache=0,
                sharding=sharding.of_rows(system.mesh),
            )
        )
        self._canvas = next(data)
        data.close()
        buckets = config.evaluation.clocks
        self._clocks = [(i + 0.5) / buckets for i in range(buckets)]
        self._key = jax.random.key(config.seed)
        self._step = jax.jit(
            functools.partial(step.eval_step, model=system.model, paradigm=system.paradigm)
        )

    def __call__(self, params: PyTree) -> dict[str, float]:
        """Mean loss by name: `heldout/text`, and `heldout/text/u=0.1` for one time.

        u is the document's time before any change of distribution; it is the clock itself where
        the paradigm's clock is uniform.
        """
        by_clock = [
            jax.device_get(self._step(params, self._key, jnp.float32(u), self._canvas))
            for u in self._clocks
        ]
        means = {}
        for name in by_clock[0]:
            terms = [measured[name] for measured in by_clock]
            means[f"heldout/{name}"] = float(
                functools.reduce(lambda a, b: a.merge(b), terms).compute()
            )
            for u, term in zip(self._clocks, terms, strict=True):
                means[f"heldout/{name}/u={u:.2f}"] = float(term.compute())
        return means


def run(system: build.System, folder: epath.Path) -> dict[str, float]:
    """Evaluates the newest checkpoint in `folder`; prints the figures, and leaves them there.

    Writes `evaluation.json`, figure -> value, with the number of forward passes after an @; a
    contact sheet of what was scored, where there is something to see; and, if there are several
    numbers of passes, a plot of the figures against them.

    Raises:
        UserError: there is no checkpoint.
    """
    params = averaged(system, folder)
    with sharding.use(system.mesh):
        figures = Losses(system)(params)
    config = system.config.evaluation
    generator = generate.Generator(system, params)
    suite = build.suite(system.config)
    figures |= suite.constants
    to_do = [
        (passes, task)
        for passes, task in itertools.product(config.passes, suite.tasks)
        if not (task.births and passes < 2)
    ]
    progress = logs.Progress("evaluating", len(to_do), unit="task")
    for done, (passes, task) in enumerate(to_do, 1):
        # What bears a number of passes must not take more.
        laid_out = passes // 2 if task.births else passes
        plan = plans.evaluation(system.config, system.paradigm, laid_out)
        made = generator(task.prompts, plan, seed=system.config.seed, batch=config.batch)
        score = task.score([document for batch in made for document in batch.documents])
        found = {f"{name}@{passes}": value for name, value in score.figures.items()}
        progress.advance(done)
        progress.report(done, ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
        figures |= found
        if score.cells:
            path = folder / f"{task.name}@{passes}.png"
            sheet.contact_sheet(path, score.cells, COLUMNS, f"{system.config.name}: {path.stem}")
    progress.close()
    if len(config.passes) > 1 and suite.tasks:
        plots.lines(folder / "evaluation.png", curves(figures), system.config.name, up="share")
    workdir.write_atomically(
        folder / workdir.EVALUATION, json.dumps(figures, indent=2, sort_keys=True) + "\n"
    )
    return figures


def averaged(system: build.System, folder: epath.Path) -> PyTree:
    """The newest averaged parameters in `folder`."""
    like = build.abstract_state(system).ema
    with checkpoint.Checkpoints(folder, system.config.checkpoint.keep) as checkpoints:
        return checkpoints.restore_averaged(like)


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
    passes = sorted({n for points in by_name.values() for n, _ in points})
    lines = ["passes".ljust(20) + "".join(f"{n:>8}" for n in passes)]
    lines += [
        name.ljust(20) + "".join(_cell(dict(points).get(n)) for n in passes)
        for name, points in by_name.items()
    ]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.3f}"
