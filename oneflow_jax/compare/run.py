"""Runs a comparison (`--config=configs/compare.py`): trains and measures all models; writes a page.

| file                       | content                                                     |
|----------------------------|-------------------------------------------------------------|
| compare.html               | the page                                                    |
| compare.md                 | tables and notes of the page as Markdown                    |
| compare.json               | value and ends of its interval, by paradigm and metric      |
| latency.json               | seconds and forward passes of each timed batch              |
| codec/, <paradigm>-<seed>/ | training runs; `runtime.workdir` lists their files          |
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath

from oneflow_jax.build import evaluation, values
from oneflow_jax.build.loop_config import make_loop_config
from oneflow_jax.compare import aggregate, captions, measure, page, rooflines, runs
from oneflow_jax.data import sources
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import emoji_styles, full_suite, interleaved
from oneflow_jax.runtime import host, storage, workdir

PAGE_FILE, TABLES_FILE, METRICS_FILE, LATENCY_FILE = (
    "compare.html",
    "compare.md",
    "compare.json",
    "latency.json",
)

BATCH_SIZES = (1, 8)
"""Batch sizes for which latency is measured."""

MIN_SAMPLES = 16
"""Minimum of `num_samples`: image distances are also computed on random halves of the samples."""

BatchTimings = dict[int, list[tuple[float, int]]]
"""(seconds, forward passes) of each timed batch, by batch size."""


def run(config: ml_collections.ConfigDict, folder: epath.Path) -> epath.Path:
    """Train and measure all models that are not yet trained or measured; return the page's path.

    Raises:
        UserError: a value of the configuration is invalid, or packages are missing.
    """
    validate(config)
    _check_folder(config, folder)
    workdir.save_config(folder, config)
    if config.compile_fast:
        host.disable_xla_optimizations()
    runs.ensure_codec(config, folder)
    trained: dict[str, list[runs.FinishedRun]] = {}
    measured: dict[str, list[measure.RunMeasurements]] = {}
    training_runs = list(runs.iter_runs(config, folder))
    for number, one in enumerate(training_runs, 1):
        logging.info("%s, seed %d: run %d of %d.", one.name, one.seed, number, len(training_runs))
        done = runs.train_run(config, folder, one)
        trained.setdefault(one.name, []).append(done)
        measured.setdefault(one.name, []).append(measure.measure(done, config))
    timed, machine = _measure_latency(
        config, folder, {name: each[0] for name, each in trained.items()}
    )
    comparison = _make_comparison(config, folder, measured, timed, machine)
    published = aggregate.published_subset(comparison)
    page.write(folder / PAGE_FILE, published)
    workdir.write_atomically(folder / TABLES_FILE, page.render_markdown(published))
    text = json.dumps(aggregate.to_json(comparison), indent=2) + "\n"
    workdir.write_atomically(folder / METRICS_FILE, text)
    return folder / PAGE_FILE


def validate(config: ml_collections.ConfigDict) -> None:
    """Check the configuration of a comparison before anything is trained.

    Raises:
        UserError: a value is invalid, or packages are missing.
    """
    values.validate(config)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"seeds={config.seeds}: give one or more different integers, 0 or greater.")
    order, names = list(config.models_shown), sorted(config.models)
    if not order or len(set(order)) < len(order) or set(order) - set(names):
        raise UserError(
            f"models_shown={tuple(order)}: give one or more of {', '.join(names)}, each only once."
        )
    for name in order:
        one = config.models[name]
        if config.reported_nfe.get(name) not in one.evaluation.nfe:
            raise UserError(
                f"reported_nfe.{name}={config.reported_nfe.get(name)} is not in models.{name}."
                f"evaluation.nfe={one.evaluation.nfe}. Give one of these values."
            )
        if not MIN_SAMPLES <= config.num_samples <= one.source.documents:
            raise UserError(
                f"num_samples={config.num_samples}: give {MIN_SAMPLES} to {one.source.documents}, "
                f"the value of models.{name}.source.documents."
            )
        if not one.evaluation.full_metrics:
            raise UserError(
                f"models.{name}.evaluation.full_metrics=False: a comparison needs the metrics of "
                "pretrained networks. Set it to True, and install requirements-metrics.txt."
            )
        storage.require_local(one.data.dir, f"models.{name}.data.dir")
        make_loop_config(one)
        evaluation.validate(one)


def _check_folder(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Raise UserError if the folder holds another run, or models with another FLOPs budget."""
    if not (folder / workdir.CONFIG).exists():
        return
    was = workdir.load_config(folder)
    if "models" not in was:
        raise UserError(f"--workdir={folder} holds a run of {was.name}. Choose another --workdir.")
    folders = [runs.make_text_model_run(config, folder, seed).folder for seed in config.seeds]
    folders += [one.folder for one in runs.iter_runs(config, folder)]
    fields = ("train_flops", "text_pretrain_fraction")
    changed = [field for field in fields if was[field] != config[field]]
    if changed and any(one.exists() for one in folders):
        there = ", ".join(f"{field}={was[field]:g}" for field in changed)
        raise UserError(
            f"--workdir={folder} was started with {there}. Give the same values, or choose another "
            "--workdir."
        )


def _measure_latency(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    finished_runs: Mapping[str, runs.FinishedRun],
) -> tuple[dict[str, BatchTimings], dict[str, str]]:
    """Time the model of the first seed of each paradigm, or read the timings of an earlier call.

    The models take turns batch by batch, so changes of the machine's load affect all of them alike.

    Returns:
        The timings by model, and the properties of the machine.
    """
    path = folder / LATENCY_FILE
    key = {name: measure.cache_key(one, config) for name, one in finished_runs.items()}
    key = json.loads(
        json.dumps({"runs": key, "times": config.latency_repeats, "batches": BATCH_SIZES})
    )
    if (
        path.exists()
        and _upgrade_latency_key((record := json.loads(path.read_text()))["key"]) == key
    ):
        timings = {
            name: {int(batch): [tuple(x) for x in timed] for batch, timed in batches.items()}
            for name, batches in record["seconds"].items()
        }
        return timings, record["machine"]
    logging.info("Measuring the latency of %s.", ", ".join(finished_runs))
    machine = {name: str(value) for name, value in host.machine_info().items()}
    makers = {name: measure.TimedGenerator(one, config) for name, one in finished_runs.items()}
    timings: dict[str, BatchTimings] = {
        name: {batch: [] for batch in BATCH_SIZES} for name in makers
    }
    for batch in BATCH_SIZES:
        for n in range(config.latency_repeats):
            for name, make in makers.items():
                timings[name][batch].append(make(n * batch, batch))
    record = {"key": key, "machine": machine, "seconds": timings}
    workdir.write_atomically(path, json.dumps(record) + "\n")
    return timings, machine


def _upgrade_latency_key(key: Mapping[str, Any]) -> dict[str, Any]:
    upgraded = {name: measure.upgrade_key(run_key) for name, run_key in key["runs"].items()}
    return {**key, "runs": upgraded}


def _make_comparison(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    results: Mapping[str, Sequence[measure.RunMeasurements]],
    timings: Mapping[str, BatchTimings],
    machine: Mapping[str, str],
) -> page.ComparisonResult:
    first = next(runs.iter_runs(config, folder)).config
    comparison = page.ComparisonResult(
        models=[
            aggregate.aggregate_model(name, results[name], timings[name])
            for name in config.models_shown
        ],
        reference_bounds=_reference_bounds(first),
        latency=[
            page.LatencyResult(
                aggregate.model_info(name).title,
                batch,
                aggregate.bootstrap_mean([s for s, _ in timed]),
            )
            for name in config.models_shown
            for batch, timed in timings[name].items()
        ],
        roofline=rooflines.make_tables(),
        num_images=config.num_samples,
        flops_budget=config.train_flops,
        seeds=config.seeds,
        machine=machine,
        data={
            **_describe_data(first.source),
            "learning rates": _learning_rates(config),
            "command": f"python -m oneflow_jax.main --config={config.command}",
        },
        attribution=sources.list_attribution(first.source.name),
    )
    notes = captions.make_notes(comparison, config.reported_nfe, first.source.name)
    return dataclasses.replace(comparison, notes=notes)


def _describe_data(source: ml_collections.ConfigDict) -> dict[str, str]:
    styles = f" in up to {len(source.styles)} styles" if "styles" in source else ""
    return {
        "documents": f"{source.documents:,} of emoji, {source.interleaved:.0%} of them with 2 to 4 "
        "images",
        "pictures": f"{source.concepts} emoji{styles}, of {source.pixels} x {source.pixels} pixels",
    }


def _learning_rates(config: ml_collections.ConfigDict) -> str:
    """Format the learning rates, such as "DALL-E, OneFlow 0.012; LMFusion 0.006"."""
    by_rate: dict[float, list[str]] = {}
    for name in config.models_shown:
        rate = config.models[name].optimizer.learning_rate
        by_rate.setdefault(rate, []).append(aggregate.model_info(name).title)
    return "; ".join(f"{', '.join(titles)} {rate:g}" for rate, titles in by_rate.items())


def _reference_bounds(config: ml_collections.ConfigDict) -> dict[str, dict[str, page.Estimate]]:
    """Compute the metrics of real documents, and of real documents with shuffled images.

    If the data has styles, the upper bound also has metrics of real drawings of held-out pairs.
    """
    known = evaluation.reference_data(config)
    bounds = interleaved.compute_bounds(known.real, known.images, known.classifier)
    pairs = emoji_styles.measure_classifier(
        "reference_composition", known.classifier, known.heldout_pairs
    )
    pairs |= full_suite.measure_heldout_pairs(known)
    bounds["upper"] |= {name.removeprefix("reference_"): x for name, x in pairs.items()}
    titles = {"upper": "real documents", "lower": "real, images shuffled"}
    return {
        titles[name]: {figure: page.Estimate(x, x, x) for figure, x in values.items()}
        for name, values in bounds.items()
    }
