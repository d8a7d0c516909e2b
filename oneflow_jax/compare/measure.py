"""Measures a trained model, and caches the measurements in the run's folder.

Metrics that support resampling also have bootstrap values over documents
(`evaluation.bootstrap`). The module `aggregate` combines the measurements of several seeds.
"""

import functools
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from oneflow_jax import evaluate
from oneflow_jax.build import system as system_lib
from oneflow_jax.compare import page, runs, serialize, timelines
from oneflow_jax.compare.runs import FinishedRun
from oneflow_jax.compare.serialize import Measurement, RunMeasurements
from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import base as base_lib
from oneflow_jax.evaluation import bootstrap
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import renamed_keys, sharding, workdir
from oneflow_jax.samplers.base import SamplingPlan

MEASUREMENTS_FILE = "comparison.json"

VERSION = 2
"""Version of the measurements; increase it when a code change makes cached measurements invalid."""

TASKS = ("text_to_image", "image_to_text", "unseen", "styled", "composition", "document")
"""Names of the compared tasks, if the data set has them; the last one generates whole documents."""

NUM_EXAMPLES = 4
"""Number of generated documents on the page; they are the first ones, without selection."""


def measure(finished_run: FinishedRun, config: ml_collections.ConfigDict) -> RunMeasurements:
    """Measure a finished run, or read cached measurements from its folder."""
    path, key = finished_run.run.folder / MEASUREMENTS_FILE, cache_key(finished_run, config)
    if path.exists() and upgrade_key((record := json.loads(path.read_text()))["key"]) == key:
        return serialize.from_json(record["measures"])
    measurements = _run_measurements(finished_run, config)
    record = {"key": key, "measures": serialize.to_json(measurements)}
    workdir.write_atomically(path, json.dumps(record) + "\n")
    return measurements


def cache_key(finished_run: FinishedRun, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return the settings that measurements depend on; equal settings make a cache valid."""
    own = json.loads(finished_run.system.config.to_json())
    # Paths do not affect measurements; the codec of patches has no path to delete.
    del own["data"]["dir"], own["init_from"]
    own["codec"].pop("path", None)
    own["checkpoint"].pop("skip_damaged", None)
    return {
        "version": VERSION,
        "headline": config.reported_nfe[finished_run.run.name],
        "compile_fast": config.compile_fast,
        "run": own,
    }


def upgrade_key(key: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved `cache_key` with old names of configuration keys replaced by new ones."""
    return {**key, "run": renamed_keys.upgrade(key["run"])}


class TimedGenerator:
    """Measures how long a trained model takes to generate a batch of documents without a prompt."""

    def __init__(self, finished_run: FinishedRun, config: ml_collections.ConfigDict) -> None:
        """Build the generator and the sampling plan; `config` is the comparison's configuration."""
        system = finished_run.system
        self._num_devices = system.mesh.size
        self._generator = Generator(system, finished_run.params)
        self._task = next(
            t for t in system_lib.supported_suite(system).tasks if t.name == TASKS[-1]
        )
        grid = evaluate.time_grid(system, finished_run.params)
        self._plan = evaluate.task_plan(
            system, self._task, config.reported_nfe[finished_run.run.name], grid
        )

    def __call__(self, start: int, batch_size: int) -> tuple[float, int]:
        """Generate a batch, from prompt number `start` on; return its seconds and its NFE."""
        count = len(self._task.prompts)
        prompts = [self._task.prompts[(start + n) % count] for n in range(batch_size)]
        # The generator pads the batch to a multiple of the number of devices.
        rows = -(-batch_size // self._num_devices) * self._num_devices
        # JAX compiles the network for each new row length, and the length depends on the prompts.
        # So a first call, which is not timed, compiles the network.
        list(self._generator(prompts, self._plan, seed=start, batch=rows))
        began = time.monotonic()
        (batch,) = self._generator(prompts, self._plan, seed=start, batch=rows)
        return time.monotonic() - began, batch.nfe


def _run_measurements(
    finished_run: FinishedRun, config: ml_collections.ConfigDict
) -> RunMeasurements:
    system, name = finished_run.system, finished_run.run.name
    logging.info("Measuring %s, seed %d.", name, finished_run.run.seed)
    generator = Generator(system, finished_run.params)
    grid = evaluate.time_grid(system, finished_run.params)
    tasks = {
        task.name: task for task in system_lib.supported_suite(system).tasks if task.name in TASKS
    }
    headline = config.reported_nfe[name]
    figures: dict[str, Measurement] = {}
    curves: dict[str, list[page.CurvePoint]] = {}
    samples: list[Document] = []
    for task in tasks.values():
        # Only the tasks `text_to_image` and `document` are measured at several NFE, for curves.
        several = task.name in (TASKS[0], TASKS[-1])
        for passes in system.config.evaluation.nfe if several else (headline,):
            plan = evaluate.task_plan(system, task, passes, grid)
            documents, seconds, taken = _generate_and_time(generator, task, plan, system.config)
            score = task.score(documents)
            values = {**score.metrics, **score.unbounded}
            logging.info("%s", ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
            for figure, value in values.items():
                if several:
                    point = page.CurvePoint(taken, seconds, value)
                    curves.setdefault(figure, []).append(point)
            if passes == headline:
                draws = score.bootstrap(finished_run.run.seed)
                figures |= {
                    figure: Measurement(value, [float(x) for x in draws.get(figure, ())], share)
                    for group, share in ((score.metrics, True), (score.unbounded, False))
                    for figure, value in group.items()
                }
                samples = documents[:NUM_EXAMPLES] if task.name == TASKS[-1] else samples
    figures |= _fixed_metrics(finished_run)
    if finished_run.system.config.init_from:
        text = runs.make_text_model_run(
            config, finished_run.run.folder.parent, finished_run.run.seed
        )
        both = runs.measure_text_losses(runs.train_one(text), finished_run)
        names = ("text_loss_pretrained", "text_loss_finetuned")
        figures |= dict(zip(names, map(Measurement, both), strict=True))
    timeline = timelines.record_timeline(finished_run, tasks[TASKS[-1]], headline)
    return RunMeasurements(figures, curves, samples, timeline)


def _generate_and_time(
    generator: Generator,
    task: base_lib.EvalTask,
    plan: SamplingPlan,
    config: ml_collections.ConfigDict,
) -> tuple[list[Document], float, float]:
    """Generate the documents of a task, and measure the time.

    Returns:
        The documents, the seconds per document without compilation, and the forward passes per
        batch.
    """
    batch = config.evaluation.batch_size
    run = functools.partial(generator, task.prompts, plan, seed=config.seed, batch=batch)
    next(run())
    began = time.monotonic()
    batches = list(run())
    seconds = (time.monotonic() - began) / len(task.prompts)
    documents = [document for batch in batches for document in batch.documents]
    return documents, seconds, float(np.mean([batch.nfe for batch in batches]))


def _fixed_metrics(finished_run: FinishedRun) -> dict[str, Measurement]:
    with sharding.mesh_context(finished_run.system.mesh):
        losses = finished_run.system.eval_losses()(finished_run.params)
        likelihood = finished_run.system.likelihood()
        nats = likelihood(finished_run.params) if likelihood else None
    parameters = sum(leaf.size for leaf in jax.tree.leaves(finished_run.params))
    metrics = {name.replace("/", "_"): x for name, x in losses.items() if "t=" not in name}
    metrics |= {"train_flops": finished_run.flops_spent, "parameters": float(parameters)}
    constants = {name: Measurement(value) for name, value in metrics.items()}
    if nats:
        draws = bootstrap.resample(nats.mean, len(nats.total))
        constants["nats_per_document"] = Measurement(nats.mean(), [float(x) for x in draws])
    return constants
