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
from oneflow_jax.compare.runs import Trained
from oneflow_jax.compare.serialize import Estimate, Measures
from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import base as base_lib
from oneflow_jax.evaluation import bootstrap
from oneflow_jax.paradigms import base
from oneflow_jax.runtime import sharding, workdir

FILE = "comparison.json"

VERSION = 2
"""Raised whenever something else is measured, or otherwise."""

TASKS = ("text_to_image", "image_to_text", "unseen", "document")
"""Of the suite's tasks those that are compared; the last one makes whole documents."""

SHOWN = 4
"""Documents on the page: the first ones, not picked."""


def measured(trained: Trained, config: ml_collections.ConfigDict) -> Measures:
    """The measures of a contestant: read from its folder, or made and left there."""
    path, key = trained.run.folder / FILE, asked(trained, config)
    if path.exists() and (kept := json.loads(path.read_text()))["key"] == key:
        return serialize.measures(kept["measures"])
    found = _measured(trained, config)
    kept = {"key": key, "measures": serialize.plain(found)}
    workdir.write_atomically(path, json.dumps(kept) + "\n")
    return found


def asked(trained: Trained, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What measures depend on: measures of anything else are made anew."""
    own = json.loads(trained.system.config.to_json())
    # Where things lie changes nothing; a codec of patches has no path.
    del own["data"]["dir"], own["start"]
    own["codec"].pop("path", None)
    return {
        "version": VERSION,
        "headline": config.headline[trained.run.name],
        "compile_fast": config.compile_fast,
        "run": own,
    }


class Maker:
    """A trained contestant that makes documents from nothing, as many at a time as is asked."""

    def __init__(self, trained: Trained, config: ml_collections.ConfigDict) -> None:
        """Binds the parameters; `config` is of the comparison."""
        system = trained.system
        self._devices = system.mesh.size
        self._generator = generate.Generator(system, trained.params)
        self._task = next(t for t in system_lib.suite(system).tasks if t.name == TASKS[-1])
        grid = evaluate.spacing(system, trained.params)
        self._plan = evaluate.plan_of(system, self._task, config.headline[trained.run.name], grid)

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


def _measured(trained: Trained, config: ml_collections.ConfigDict) -> Measures:
    system, name = trained.system, trained.run.name
    logging.info("Measuring %s, seed %d.", name, trained.run.seed)
    generator = generate.Generator(system, trained.params)
    grid = evaluate.spacing(system, trained.params)
    tasks = {task.name: task for task in system_lib.suite(system).tasks if task.name in TASKS}
    headline = config.headline[name]
    figures: dict[str, Estimate] = {}
    curves: dict[str, list[page.Point]] = {}
    samples: list[Document] = []
    for task in tasks.values():
        # Curves are of what is made from nothing and of pictures alone.
        several = task.name in (TASKS[0], TASKS[-1])
        for passes in system.config.evaluation.passes if several else (headline,):
            plan = evaluate.plan_of(system, task, passes, grid)
            made, seconds, taken = _made(generator, task, plan, system.config)
            score = task.score(made)
            values = {**score.figures, **score.numbers}
            logging.info("%s", ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
            for figure, value in values.items():
                if several:
                    point = page.Point(taken, seconds, value)
                    curves.setdefault(figure, []).append(point)
            if passes == headline:
                draws = score.spread(trained.run.seed)
                figures |= {
                    figure: Estimate(value, [float(x) for x in draws.get(figure, ())], share)
                    for of, share in ((score.figures, True), (score.numbers, False))
                    for figure, value in of.items()
                }
                samples = made[:SHOWN] if task.name == TASKS[-1] else samples
    figures |= _constants(trained)
    if trained.system.config.start:
        text = runs.text_model(config, trained.run.folder.parent, trained.run.seed)
        both = runs.text_losses(runs.alone(text), trained)
        names = ("text_loss_before", "text_loss_after")
        figures |= dict(zip(names, map(Estimate, both), strict=True))
    timeline = timelines.timeline(trained, tasks[TASKS[-1]], headline)
    return Measures(figures, curves, samples, timeline)


def _made(
    generator: generate.Generator,
    task: base_lib.Task,
    plan: base.Plan,
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


def _constants(trained: Trained) -> dict[str, Estimate]:
    with sharding.use(trained.system.mesh):
        losses = trained.system.losses()(trained.params)
        likelihood = trained.system.likelihood()
        nats = likelihood(trained.params) if likelihood else None
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trained.params))
    found = {name.replace("/", "_"): x for name, x in losses.items() if "u=" not in name}
    found |= {"train_flops": trained.flops, "parameters": float(parameters)}
    constants = {name: Estimate(value) for name, value in found.items()}
    if nats:
        draws = bootstrap.drawn(nats.mean, len(nats.total))
        constants["text_nats"] = Estimate(nats.mean(), [float(x) for x in draws])
    return constants
