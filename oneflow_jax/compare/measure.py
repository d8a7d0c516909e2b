"""What is measured of one trained contestant, kept in its folder so that it is measured once.

Figures come with values that they would have with other documents (`scoring.intervals`), as far as
their score can tell: over seeds they are put together by `tally`.
"""

import functools
import json
import logging
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from oneflow_jax import evaluate, generate
from oneflow_jax.build import system as system_lib
from oneflow_jax.compare import page, runs, serialize, timelines
from oneflow_jax.compare.runs import FinishedRun
from oneflow_jax.compare.serialize import Measurement, RunMeasurements
from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import base as base_lib
from oneflow_jax.evaluation import bootstrap
from oneflow_jax.runtime import sharding, workdir
from oneflow_jax.samplers.base import SamplingPlan

MEASUREMENTS_FILE = "comparison.json"

VERSION = 2
"""Raised whenever something else is measured, or otherwise."""

TASKS = ("text_to_image", "image_to_text", "unseen", "document")
"""Of the suite's tasks those that are compared; the last one makes whole documents."""

NUM_EXAMPLES = 4
"""Documents on the page: the first ones, not picked."""


def measure(finished_run: FinishedRun, config: ml_collections.ConfigDict) -> RunMeasurements:
    """The measures of a contestant: read from its folder, or made and left there."""
    path, key = finished_run.run.folder / MEASUREMENTS_FILE, cache_key(finished_run, config)
    if path.exists() and (kept := json.loads(path.read_text()))["key"] == key:
        return serialize.from_json(kept["measures"])
    found = _run_measurements(finished_run, config)
    kept = {"key": key, "measures": serialize.to_json(found)}
    workdir.write_atomically(path, json.dumps(kept) + "\n")
    return found


def cache_key(finished_run: FinishedRun, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What measures depend on: measures of anything else are made anew."""
    own = json.loads(finished_run.system.config.to_json())
    # Where things lie changes nothing; a codec of patches has no path.
    del own["data"]["dir"], own["start"]
    own["codec"].pop("path", None)
    return {
        "version": VERSION,
        "headline": config.headline[finished_run.run.name],
        "compile_fast": config.compile_fast,
        "run": own,
    }


class TimedGenerator:
    """A trained contestant that makes documents from nothing, as many at a time as is asked."""

    def __init__(self, trained: FinishedRun, config: ml_collections.ConfigDict) -> None:
        """Binds the parameters; `config` is of the comparison."""
        system = trained.system
        self._devices = system.mesh.size
        self._generator = generate.Generator(system, trained.params)
        self._task = next(
            t for t in system_lib.supported_suite(system).tasks if t.name == TASKS[-1]
        )
        grid = evaluate.time_grid(system, trained.params)
        self._plan = evaluate.task_plan(system, self._task, config.headline[trained.run.name], grid)

    def __call__(self, first: int, batch: int) -> tuple[float, int]:
        """Seconds and passes of the documents from number `first` on, a batch of them."""
        count = len(self._task.prompts)
        prompts = [self._task.prompts[(first + n) % count] for n in range(batch)]
        # Rows are as long as the prompts ask for: a length that has not come before compiles.
        # Several devices share a batch evenly; the generator fills it up.
        rows = -(-batch // self._devices) * self._devices
        list(self._generator(prompts, self._plan, seed=first, batch=rows))
        began = time.monotonic()
        (made,) = self._generator(prompts, self._plan, seed=first, batch=rows)
        return time.monotonic() - began, made.passes


def _run_measurements(
    finished_run: FinishedRun, config: ml_collections.ConfigDict
) -> RunMeasurements:
    system, name = finished_run.system, finished_run.run.name
    logging.info("Measuring %s, seed %d.", name, finished_run.run.seed)
    generator = generate.Generator(system, finished_run.params)
    grid = evaluate.time_grid(system, finished_run.params)
    tasks = {
        task.name: task for task in system_lib.supported_suite(system).tasks if task.name in TASKS
    }
    headline = config.headline[name]
    figures: dict[str, Measurement] = {}
    curves: dict[str, list[page.CurvePoint]] = {}
    samples: list[Document] = []
    for task in tasks.values():
        # Curves are of what is made from nothing and of pictures alone.
        several = task.name in (TASKS[0], TASKS[-1])
        for passes in system.config.evaluation.passes if several else (headline,):
            plan = evaluate.task_plan(system, task, passes, grid)
            made, seconds, taken = _generate_and_time(generator, task, plan, system.config)
            score = task.score(made)
            values = {**score.figures, **score.numbers}
            logging.info("%s", ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
            for figure, value in values.items():
                if several:
                    point = page.CurvePoint(taken, seconds, value)
                    curves.setdefault(figure, []).append(point)
            if passes == headline:
                draws = score.spread(finished_run.run.seed)
                figures |= {
                    figure: Measurement(value, [float(x) for x in draws.get(figure, ())], share)
                    for of, share in ((score.figures, True), (score.numbers, False))
                    for figure, value in of.items()
                }
                samples = made[:NUM_EXAMPLES] if task.name == TASKS[-1] else samples
    figures |= _fixed_metrics(finished_run)
    if finished_run.system.config.start:
        text = runs.make_text_model_run(
            config, finished_run.run.folder.parent, finished_run.run.seed
        )
        both = runs.measure_text_losses(runs.train_one(text), finished_run)
        names = ("text_loss_before", "text_loss_after")
        figures |= dict(zip(names, map(Measurement, both), strict=True))
    timeline = timelines.record_timeline(finished_run, tasks[TASKS[-1]], headline)
    return RunMeasurements(figures, curves, samples, timeline)


def _generate_and_time(
    generator: generate.Generator,
    task: base_lib.EvalTask,
    plan: SamplingPlan,
    config: ml_collections.ConfigDict,
) -> tuple[list[Document], float, float]:
    """The documents of a task, seconds a document without compiling, and passes a batch."""
    batch = config.evaluation.batch
    run = functools.partial(generator, task.prompts, plan, seed=config.seed, batch=batch)
    next(run())
    began = time.monotonic()
    batches = list(run())
    seconds = (time.monotonic() - began) / len(task.prompts)
    made = [document for batch in batches for document in batch.documents]
    return made, seconds, float(np.mean([batch.passes for batch in batches]))


def _fixed_metrics(finished_run: FinishedRun) -> dict[str, Measurement]:
    with sharding.mesh_context(finished_run.system.mesh):
        losses = finished_run.system.losses()(finished_run.params)
        likelihood = finished_run.system.likelihood()
        nats = likelihood(finished_run.params) if likelihood else None
    parameters = sum(leaf.size for leaf in jax.tree.leaves(finished_run.params))
    found = {name.replace("/", "_"): x for name, x in losses.items() if "u=" not in name}
    found |= {"train_flops": finished_run.flops, "parameters": float(parameters)}
    constants = {name: Measurement(value) for name, value in found.items()}
    if nats:
        draws = bootstrap.resample(nats.mean, len(nats.total))
        constants["text_nats"] = Measurement(nats.mean(), [float(x) for x in draws])
    return constants
