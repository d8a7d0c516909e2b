"""Evaluation of a checkpoint: held-out losses by time, and metrics of generated documents."""

import dataclasses
import itertools
import json
import logging
from collections.abc import Mapping, Sequence

from etils import epath

from oneflow_jax.build import sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import prompt_rows
from oneflow_jax.evaluation import base as base_lib
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import distributed, metric_writer, sharding, workdir
from oneflow_jax.samplers import guidance, time_grids
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import diagnosis, export, overfitting
from oneflow_jax.viewer import contact_sheet, plots

GRID_COLUMNS = 8
"""Number of images in one row of a contact sheet."""

NAME_WIDTH = 31
"""Width of the column of metric names in the table; the longest name has 29 characters."""

_BEGINNING = (
    "Evaluating the model: losses first, then the documents that it generates. The programs are "
    "compiled first, which can take a minute."
)

TIME_BINS = 16
"""Number of equal time intervals; a learned time grid uses the loss at the start of each."""


def run(
    system: system_lib.System, folder: epath.Path, output: epath.Path | None = None
) -> dict[str, float]:
    """Evaluate a checkpoint in `folder` (`checkpoint.use`); write the metrics and return them.

    The function writes to `output`, or to `folder` if `output` is None. It writes
    `evaluation.json`, with values by metric name; contact sheets of the scored images; and, if
    several NFEs are configured, a plot of the metrics over NFE. Metrics of generated documents have
    names that end in @NFE, such as `joint@16`.

    Raises:
        UserError: the folder has no checkpoint.
    """
    logging.info(_BEGINNING)
    params = load_ema_params(system, folder)
    folder = output or folder
    metrics = measure_losses(system, params)
    config = system.config.evaluation
    grid = time_grid(system, params)
    generator = Generator(system, params)
    suite = system_lib.supported_suite(system)
    metrics |= suite.measure_reference()
    fractions: dict[str, float] = {}
    generated: base_lib.DocumentsByTask = {}
    pairs = itertools.product(config.nfe, suite.tasks)
    to_do = [(n, task) for n, task in pairs if affordable_nfe(system, task, n) > 0]
    progress = metric_writer.ProgressBar("evaluating", len(to_do), unit="task")
    for done, (nfe, task) in enumerate(to_do, 1):
        plan = task_plan(system, task, nfe, grid)
        generated[task.name] = _generate(system, generator, task, plan)
        score = task.score(generated[task.name])
        values = {**score.metrics, **score.unbounded}
        task_metrics = {f"{name}@{nfe}": value for name, value in values.items()}
        progress.advance(done)
        progress.report(
            done, ", ".join(f"{name} {value:.3f}" for name, value in task_metrics.items())
        )
        metrics |= task_metrics
        fractions |= {
            name: task_metrics[name] for name in task_metrics if name.split("@")[0] in score.metrics
        }
        if score.gallery and distributed.is_primary():
            path = folder / f"{task.name}@{nfe}.png"
            contact_sheet.write_contact_sheet(
                path, score.gallery, GRID_COLUMNS, f"{system.config.name}: {path.stem}"
            )
    progress.close()
    if len(config.nfe) > 1 and suite.tasks and distributed.is_primary():
        plots.plot_lines(
            folder / "evaluation.png",
            metrics_by_nfe(fractions),
            system.config.name,
            ylabel="fraction",
        )
    _write_sheet(suite.make_sheet(generated), folder, system.config.name)
    workdir.write_atomically(
        folder / workdir.EVALUATION, json.dumps(metrics, indent=2, sort_keys=True) + "\n"
    )
    return metrics


def _generate(
    system: system_lib.System,
    generator: Generator,
    task: base_lib.EvalTask,
    plan: SamplingPlan,
) -> base_lib.Documents:
    """Return the documents that the model generates for the prompts of a task."""
    config = system.config
    batches = generator(
        task.prompts,
        plan,
        seed=config.seed,
        batch=config.evaluation.batch_size,
        noise_ids=task.noise_ids,
    )
    return [document for batch in batches for document in batch.documents]


def measure_losses(system: system_lib.System, params: PyTree) -> dict[str, float]:
    """Return held-out losses, gains and likelihoods by name, as far as they are defined."""
    with sharding.mesh_context(system.mesh):
        metrics = system.eval_losses()(params)
        if document_losses := system.document_losses():
            metrics |= document_losses(params)[0]
        if likelihood := system.likelihood():
            metrics["eval/nats_per_document"] = likelihood(params).mean()
    return metrics


def _write_sheet(sheet: base_lib.Sheet | None, folder: epath.Path, name: str) -> None:
    """Write the contact sheet of the suite, if it has one."""
    if sheet and distributed.is_primary():
        contact_sheet.write_contact_sheet(
            folder / workdir.SHEET,
            sheet.cells,
            len(sheet.headers),
            f"{name}: what the model makes of documents",
            sheet.headers,
        )


def task_plan(
    system: system_lib.System, task: base_lib.EvalTask, nfe: int, grid_spec: time_grids.GridSpec
) -> SamplingPlan:
    """Return the sampling plan of a task with at most `nfe` forward passes.

    `affordable_nfe` must not return 0 for the same system, task and `nfe`.
    """
    steps = affordable_nfe(system, task, nfe)
    return sampling.eval_plan(
        system.config, system.paradigm, steps, grid_spec, edit=task.is_editing
    )


def affordable_nfe(system: system_lib.System, task: base_lib.EvalTask, nfe: int) -> int:
    """Return the NFE of a plan that takes at most `nfe` forward passes, or 0 if no plan does.

    An image that is inserted at the last step still needs all steps from noise to data. So a
    document with inserted images can take twice the NFE of the plan. For autoregressive models,
    `nfe` limits only the forward passes of one image, so the result is `nfe` itself.
    """
    if not (task.may_insert_images and system.layout.variable_length) or system.layout.has_markers:
        return nfe
    options = system.config.sampling
    nfe_per_step = guidance.nfe_factor(options.image_guidance_scale, options.text_guidance_scale)
    return nfe // 2 if nfe // 2 >= nfe_per_step else 0


def check_prompts(system: system_lib.System) -> None:
    """Lay out all evaluation prompts before training, so that wrong prompts are reported early.

    Raises:
        UserError: a prompt is too long for the canvas or has no gap, or a document to edit has one.
    """
    for task in system_lib.supported_suite(system).tasks:
        for document in task.prompts:
            prompt_rows.check_prompt(
                system.layout, system.known_layouts, document, edit=task.is_editing
            )


def time_grid(system: system_lib.System, params: PyTree) -> time_grids.GridSpec:
    """Return the configured time grid; estimate a learned grid from losses on training documents.

    The learned grid follows the text loss of documents in which all slots have the same time.
    """
    if system.config.sampling.time_grid != sampling.LEARNED_GRID:
        return system.config.sampling.time_grid
    shared_time_system = dataclasses.replace(system, paradigm=system.paradigm.at_shared_time)
    losses, text_term = (
        shared_time_system.eval_losses("train"),
        shared_time_system.paradigm.weights[0][0],
    )
    # The last time is below 1, because no slot is corrupted at t = 1 and the loss would be missing.
    times = [*(n / TIME_BINS for n in range(TIME_BINS)), 1 - 1 / (4 * TIME_BINS)]
    lead = system.config.paradigm.text_lead
    with sharding.mesh_context(system.mesh):
        averages = {
            t: losses.at_time(params, u)[text_term]
            for t, u in zip(times, time_grids.document_times(times, lead), strict=True)
        }
    # A time at which no token was scored has no loss.
    known = {t: float(term.compute()) for t, term in averages.items() if term.count > 0}
    if lead == 1:
        return time_grids.loss_adaptive_grid(list(known), list(known.values()))
    return time_grids.leading_text_grid(list(known), list(known.values()), lead)


def load_ema_params(system: system_lib.System, folder: epath.Path) -> PyTree:
    """Load the EMA parameters of a run (`checkpoint.use`), or the parameters of an export.

    The result has the parameters of `system.model`, into which factors of LoRA are merged.
    """
    like, settings = system.abstract_state.ema, system.loop_config
    loaded = export.load_ema_params(
        folder, like, skip_damaged=settings.skip_damaged, use=settings.use
    )
    return system.merge_params(loaded)


def metrics_by_nfe(metrics: Mapping[str, float]) -> dict[str, list[tuple[int, float]]]:
    """Return the (NFE, value) pairs of each metric whose name ends in @NFE, in order of NFE."""
    points: dict[str, list[tuple[int, float]]] = {}
    for name, value in metrics.items():
        if "@" in name:
            name, nfe = name.split("@")
            points.setdefault(name, []).append((int(nfe), value))
    return {name: sorted(points[name]) for name in sorted(points)}


def format_table(
    metrics: Mapping[str, float], overfitted: Sequence[overfitting.Overfitting] = ()
) -> str:
    """Format the metrics as a table: a row for each name, a column for each maximum NFE.

    Below the table, sentences say what the figures mean.
    """
    return "\n".join([*_table_lines(metrics), *describe(metrics, overfitted)])


def describe(
    metrics: Mapping[str, float], overfitted: Sequence[overfitting.Overfitting] = ()
) -> list[str]:
    """Return sentences about gains, overfitting and baselines; the last one is the diagnosis."""
    sentences = diagnosis.describe_evidence(metrics, overfitted)
    loss, baseline = (
        metrics.get(name)
        for name in ("eval/conditional_loss_text_heldout", "reference_text_loss_unigram_heldout")
    )
    if loss is not None and baseline is not None:
        sentences.append(
            f"Held-out texts have a loss of {loss:.2f} nats per token given their images, and "
            f"{baseline:.2f} if only the frequencies of tokens are known."
        )
    verdict = diagnosis.diagnose(metrics, overfitted)
    return [*sentences, verdict] if verdict else sentences


def find_overfitting(
    system: system_lib.System, folder: epath.Path
) -> list[overfitting.Overfitting]:
    """Return what the logs say about the newest checkpoint; [] if another one is used."""
    if system.loop_config.use != "newest":
        return []
    return overfitting.find(metric_writer.read_documents(folder / workdir.LOGS))


def _table_lines(metrics: Mapping[str, float]) -> list[str]:
    by_name = metrics_by_nfe(metrics)
    if not by_name:
        return ["No metrics of generated documents: this data set has no evaluation suite."]
    nfes = sorted({n for points in by_name.values() for n, _ in points})
    lines = ["NFE, at most".ljust(NAME_WIDTH) + "".join(f"{n:>8}" for n in nfes)]
    lines += [
        name.ljust(NAME_WIDTH) + "".join(_format_cell(dict(points).get(n)) for n in nfes)
        for name, points in by_name.items()
    ]
    return lines


def describe_run(system: system_lib.System, folder: epath.Path, output: epath.Path) -> list[str]:
    """Return sentences about the last evaluation in the logs, and about that of `--mode=evaluate`.

    Args:
        system: system of the run in `folder`.
        folder: the run's folder.
        output: folder of `evaluation.json`, if the run was evaluated.
    """
    return describe(read_metrics(folder, output), find_overfitting(system, folder))


def read_metrics(folder: epath.Path, output: epath.Path) -> dict[str, float]:
    """Return the metrics of the last evaluation in the logs, and of `evaluation.json` in `output`.

    Args:
        folder: the run's folder.
        output: folder of `evaluation.json`, if the run was evaluated.
    """
    rows = metric_writer.read_metrics(folder / workdir.LOGS)
    logged = next((row for row in reversed(rows) if any(n.startswith("eval/") for n in row)), {})
    metrics = {name: value for name, value in logged.items() if value is not None}
    path = output / workdir.EVALUATION
    return metrics | (json.loads(path.read_text()) if path.exists() else {})


def _format_cell(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.3f}"
