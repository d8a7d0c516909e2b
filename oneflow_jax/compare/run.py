"""What `--config=configs/compare.py` does: trains all, measures all, shows all side by side.

| file                       | what it holds                                            |
|----------------------------|----------------------------------------------------------|
| compare.html, compare.md   | the page; its tables for documentation                   |
| compare.json               | paradigm -> figure -> value, low, high                   |
| latency.json               | seconds and passes of each batch that was timed          |
| codec/, <paradigm>-<seed>/ | the runs: folders like any other (`workdir`)             |
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence

import ml_collections
from etils import epath

from oneflow_jax.build import evaluation
from oneflow_jax.compare import aggregate, captions, measure, page, rooflines, runs
from oneflow_jax.data import emoji_concepts
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import interleaved
from oneflow_jax.runtime import host, storage, workdir
from oneflow_jax.training import checkpoint

PAGE_FILE, TABLES_FILE, METRICS_FILE, LATENCY_FILE = (
    "compare.html",
    "compare.md",
    "compare.json",
    "latency.json",
)

BATCH_SIZES = (1, 8)
"""Documents at a time whose latency is measured."""

MIN_SAMPLES = 16
"""Samples of which half can still be compared with half."""

BatchTimings = dict[int, list[tuple[float, int]]]
"""By batch size: seconds and passes of each batch."""


def run(config: ml_collections.ConfigDict, folder: epath.Path) -> epath.Path:
    """Trains and measures what is not yet, writes everything, and returns the page's path.

    Raises:
        UserError: a value in the configuration is wrong, or packages are missing.
    """
    validate(config)
    _check_folder(config, folder)
    workdir.save_config(folder, config)
    if config.compile_fast:
        host.disable_xla_optimizations()
    runs.ensure_codec(config, folder)
    trained: dict[str, list[runs.FinishedRun]] = {}
    found: dict[str, list[measure.RunMeasurements]] = {}
    every = list(runs.iter_runs(config, folder))
    for number, one in enumerate(every, 1):
        logging.info("%s, seed %d: training %d of %d.", one.name, one.seed, number, len(every))
        done = runs.train_run(config, folder, one)
        trained.setdefault(one.name, []).append(done)
        found.setdefault(one.name, []).append(measure.measure(done, config))
    timed, machine = _measure_latency(
        config, folder, {name: each[0] for name, each in trained.items()}
    )
    shown = _make_comparison(config, folder, found, timed, machine)
    told = aggregate.published_subset(shown)
    page.write(folder / PAGE_FILE, told)
    workdir.write_atomically(folder / TABLES_FILE, page.render_markdown(told))
    text = json.dumps(aggregate.to_json(shown), indent=2) + "\n"
    workdir.write_atomically(folder / METRICS_FILE, text)
    return folder / PAGE_FILE


def validate(config: ml_collections.ConfigDict) -> None:
    """Looks for mistakes before anything is trained.

    Raises:
        UserError: a value is wrong, or packages are missing.
    """
    for field in ("flops", "samples", "latency"):
        if config[field] <= 0:
            raise UserError(f"{field}={config[field]} must be above 0.")
    if not 0 < config.language < 1:
        raise UserError(f"language={config.language} must be a share, above 0 and below 1.")
    whole = all(isinstance(seed, int) and seed >= 0 for seed in config.seeds)
    if not config.seeds or not whole or len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"seeds={config.seeds}: give whole numbers from 0, one or more, each once.")
    order, names = list(config.order), sorted(config.contestants)
    if not order or len(set(order)) < len(order) or set(order) - set(names):
        raise UserError(f"order={tuple(order)}: give some of {', '.join(names)}, each once.")
    for name in order:
        one = config.contestants[name]
        if config.headline.get(name) not in one.evaluation.passes:
            raise UserError(
                f"headline.{name}={config.headline.get(name)} is none of contestants.{name}."
                f"evaluation.passes={one.evaluation.passes}."
            )
        if not MIN_SAMPLES <= config.samples <= one.source.documents:
            raise UserError(
                f"samples={config.samples}: give {MIN_SAMPLES} to {one.source.documents}, which is "
                f"contestants.{name}.source.documents."
            )
        if not one.evaluation.thorough:
            raise UserError(
                f"contestants.{name}.evaluation.thorough=False: a comparison needs the figures "
                "that take networks (requirements-metrics.txt)."
            )
        storage.require_local(one.data.dir, f"contestants.{name}.data.dir")
        checkpoint.validate(one.checkpoint)
        evaluation.validate(one)


def _check_folder(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Refuses to mix what is in the folder with what else is asked for."""
    if not (folder / workdir.CONFIG).exists():
        return
    was = workdir.load_config(folder)
    if "contestants" not in was:
        raise UserError(f"--workdir={folder} holds a run of {was.name}: choose another --workdir.")
    folders = [runs.make_text_model_run(config, folder, seed).folder for seed in config.seeds]
    folders += [one.folder for one in runs.iter_runs(config, folder)]
    changed = [field for field in ("flops", "language") if was[field] != config[field]]
    if changed and any(one.exists() for one in folders):
        there = ", ".join(f"{field}={was[field]:g}" for field in changed)
        raise UserError(
            f"--workdir={folder} was begun with {there}: give the same, or another --workdir."
        )


def _measure_latency(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    finished_runs: Mapping[str, runs.FinishedRun],
) -> tuple[dict[str, BatchTimings], dict[str, str]]:
    """Of each contestant's first training, timed in turn, so that all see the same machine.

    And which machine it was.
    """
    path = folder / LATENCY_FILE
    key = {name: measure.cache_key(one, config) for name, one in finished_runs.items()}
    key = json.loads(json.dumps({"runs": key, "times": config.latency, "batches": BATCH_SIZES}))
    if path.exists() and (kept := json.loads(path.read_text()))["key"] == key:
        found = {
            name: {int(batch): [tuple(x) for x in timed] for batch, timed in every.items()}
            for name, every in kept["seconds"].items()
        }
        return found, kept["machine"]
    logging.info("Timing %s.", ", ".join(finished_runs))
    machine = {name: str(value) for name, value in host.machine_info().items()}
    makers = {name: measure.TimedGenerator(one, config) for name, one in finished_runs.items()}
    found: dict[str, BatchTimings] = {name: {batch: [] for batch in BATCH_SIZES} for name in makers}
    for batch in BATCH_SIZES:
        for n in range(config.latency):
            for name, make in makers.items():
                found[name][batch].append(make(n * batch, batch))
    kept = {"key": key, "machine": machine, "seconds": found}
    workdir.write_atomically(path, json.dumps(kept) + "\n")
    return found, machine


def _make_comparison(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    results: Mapping[str, Sequence[measure.RunMeasurements]],
    timings: Mapping[str, BatchTimings],
    machine: Mapping[str, str],
) -> page.ComparisonResult:
    first = next(runs.iter_runs(config, folder)).config
    shown = page.ComparisonResult(
        contestants=[
            aggregate.aggregate_model(name, results[name], timings[name]) for name in config.order
        ],
        bounds=_reference_bounds(first),
        latency=[
            page.LatencyResult(
                aggregate.model_info(name).title,
                batch,
                aggregate.bootstrap_mean([s for s, _ in every]),
            )
            for name in config.order
            for batch, every in timings[name].items()
        ],
        roofline=rooflines.make_tables(),
        pictures=config.samples,
        budget=config.flops,
        seeds=config.seeds,
        machine=machine,
        data={
            "documents": f"{first.source.documents:,} of emoji, {first.source.interleaved:.0%} of "
            "them with 2 to 4 pictures",
            "pictures": f"{first.source.concepts} emoji of {first.source.pixels} x "
            f"{first.source.pixels} pixels",
            "learning rates": _learning_rates(config),
            "command": f"python -m oneflow_jax.main --config={config.command}",
        },
        attribution=[emoji_concepts.ATTRIBUTION],
    )
    return dataclasses.replace(shown, notes=captions.make_notes(shown, config.headline))


def _learning_rates(config: ml_collections.ConfigDict) -> str:
    """As in "DALL-E, OneFlow 0.012; LMFusion 0.006"."""
    by_rate: dict[float, list[str]] = {}
    for name in config.order:
        rate = config.contestants[name].optimizer.learning_rate
        by_rate.setdefault(rate, []).append(aggregate.model_info(name).title)
    return "; ".join(f"{', '.join(titles)} {rate:g}" for rate, titles in by_rate.items())


def _reference_bounds(config: ml_collections.ConfigDict) -> dict[str, dict[str, page.Estimate]]:
    """What real documents get, and real ones with their pictures exchanged."""
    known = evaluation.reference_data(config)
    found = interleaved.compute_bounds(known.real, known.concepts, known.look)
    titles = {"upper": "real documents", "lower": "their pictures exchanged"}
    return {
        titles[name]: {figure: page.Estimate(x, x, x) for figure, x in values.items()}
        for name, values in found.items()
    }
