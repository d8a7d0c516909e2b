"""Ablations of a paradigm at equal training FLOPs: `python -m benchmarks.ablation`.

Each variant is the paradigm's configuration in configs/compare.py with a few keys changed. The
benchmark trains every variant with every seed. It measures documents generated without a prompt,
images generated for a text, and text generated for an image. Names joined by "+" combine variants.

    python -m benchmarks.ablation baseline tasks time tasks+time --flops 1e13
    python -m benchmarks.ablation baseline tasks+time --flops 3e13 --seeds 0 1 2 --documents report

Choose a variant by its metrics on the documents of the `selection` set, and report its metrics on
those of the `report` set. Layouts, reference documents and noise of the two sets differ. Finished
runs are not repeated.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence

import ml_collections
import numpy as np
from etils import epath

from benchmarks import report, settings
from oneflow_jax import evaluate
from oneflow_jax.build import evaluation, sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.compare import runs
from oneflow_jax.configs import compare
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import from_scratch
from oneflow_jax.flows import tasks
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import host, metric_writer, sharding
from oneflow_jax.shapes import PyTree

VARIANTS: dict[str, tuple[str, ...]] = {
    "baseline": (),
    "tasks": (
        "paradigm.tasks.joint=0.4",
        "paradigm.tasks.spans=0.15",
        "paradigm.tasks.scattered=0.15",
    ),
    "own_runs": ("paradigm.tasks.joint=0.3", "paradigm.tasks.own_run_times=0.3"),
    "own_slots": ("paradigm.tasks.joint=0.3", "paradigm.tasks.own_slot_times=0.3"),
    "text_first": (
        "paradigm.tasks.joint=0.2",
        "paradigm.tasks.own_slot_times=0.15",
        "paradigm.tasks.text_first=0.25",
    ),
    "conditional": (
        "paradigm.tasks.joint=0.3",
        "paradigm.tasks.text_to_image=0.3",
        "paradigm.tasks.image_to_text=0.3",
    ),
    "text_time": ("paradigm.text_time_sampler=('information', 4.97, 1.22, 0.75, 1.5)",),
    "own_slots5": ("paradigm.tasks.joint=0.1", "paradigm.tasks.own_slot_times=0.5"),
    "text3": ("paradigm.text_weight=3.0",),
    "time": ("paradigm.time_sampler=('information', 4.8, 1.14, 0.5, 1.5)",),
    "lead8": ("paradigm.text_lead=8.0", "paradigm.time_sampler=('power', 3.0)"),
    "power3": ("paradigm.time_sampler=('power', 3.0)",),
    "likelihood": ("paradigm.objective=likelihood",),
    "embed128": ("model.embed_width=128",),
    "muon": ("optimizer.name=muon",),
    "rate6e-3": ("optimizer.learning_rate=6e-3",),
    "rate2.4e-2": ("optimizer.learning_rate=2.4e-2",),
}
"""Configuration overrides of each variant, in the form key=value."""

DATA_SETS = {"emoji": ("full", "smoke"), "emoji_styles": ("styles", "styles_smoke")}
"""Kinds of configs/compare.py for each data set: the comparison, and its smoke test."""

DOCUMENT_SETS = {"selection": 0, "report": 1}
"""Index of each set of documents; the sets share neither layouts nor reference documents."""

TASKS = ("image_to_text", "text_to_image", "composition")
"""Tasks of the evaluation suite to measure; only `emoji_styles` has `composition`."""

CONDITIONAL_LOSSES = ("oneflow", "mask_flow", "transfusion", "lmfusion")
"""Paradigms whose held-out losses at t=0 are measured.

Those of `chameleon`, `dalle` and `edit_flow` have other terms, which could not be compared.
"""

TABLE_METRICS = (
    "interleaved_score",
    "template_validity",
    "category_consistency",
    "count_accuracy",
    "order_accuracy",
    "image_name_alignment",
    "diversity",
    "image_to_text",
    "text_to_image",
    "composition",
    "composition_name",
    "kid_efficientnet",
    "loss_text_given_image",
    "loss_image_given_text",
)

ROW_KEYS = (
    *("data", "paradigm", "variant", "seed", "flops"),
    *("documents", "num_documents", "nfe", "sampling"),
)
"""Fields that identify a row of ablation.json; a new row replaces one with equal values."""

Row = dict[str, object]


def main(argv: list[str] | None = None) -> list[Row]:
    """Train, measure, print, write, and return a row for each variant, seed and NFE."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument(
        "variants", nargs="+", help=f"any of {', '.join(VARIANTS)}; a+b combines a and b"
    )
    flags.add_argument("--data", default="emoji", choices=[*DATA_SETS], help="data set")
    flags.add_argument("--paradigm", default="oneflow", choices=[*compare.PASSES])
    flags.add_argument("--seeds", type=int, nargs="+", default=[0])
    flags.add_argument("--flops", type=float, default=1e13, help="training FLOPs (default: 1e13)")
    flags.add_argument("--documents", default="selection", choices=[*DOCUMENT_SETS])
    flags.add_argument(
        "--num_documents", type=int, default=1024, help="documents to generate (default: 1024)"
    )
    flags.add_argument("--nfe", type=int, nargs="+", default=[16])
    flags.add_argument(
        "--sampling",
        nargs="*",
        default=[],
        help="changes of the configuration after training, e.g. sampling.solver=euler",
    )
    flags.add_argument("--out", default="runs/ablation", help="folder of runs and metrics")
    flags.add_argument("--smoke", action="store_true", help="tiny sizes; metrics are meaningless")
    flags = flags.parse_args(argv)
    metric_writer.setup_logging()
    host.configure_malloc()
    out = epath.Path(flags.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(out / "ablation.json")
    rows: list[Row] = []
    for seed in flags.seeds:
        for variant in flags.variants:
            rows += measure_variant(variant, seed, flags, out)
            print(format_table(rows), flush=True)
            _save(path, rows)
    return rows


def _save(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Write the rows, and keep the rows of earlier calls that were not measured again."""
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    merged = {json.dumps([row[field] for field in ROW_KEYS]): row for row in (*before, *rows)}
    report.save_json(path, {"machine": host.machine_info(), "rows": [*merged.values()]})


def make_config(variant: str, seed: int, flags: argparse.Namespace) -> ml_collections.ConfigDict:
    """Return the comparison's configuration, with the variant as its only model.

    Raises:
        UserError: the variant is unknown.
    """
    parts = variant.split("+")
    if unknown := sorted(set(parts) - set(VARIANTS)):
        raise UserError(f"{', '.join(unknown)}: unknown variant. Choose from {[*VARIANTS]}.")
    config = compare.get_config(DATA_SETS[flags.data][flags.smoke])
    config.models_shown, config.seeds = (flags.paradigm,), (seed,)
    config.train_flops = 4e9 if flags.smoke else flags.flops
    changes = [one for part in parts for one in VARIANTS[part]]
    settings.apply_overrides(config.models[flags.paradigm], changes)
    # lmfusion's text model has the same optimizer, but no tasks and times of images.
    optimizer_changes = [one for one in changes if one.startswith("optimizer.")]
    settings.apply_overrides(config.text_model, optimizer_changes)
    return config


def measure_variant(
    variant: str, seed: int, flags: argparse.Namespace, out: epath.Path
) -> list[Row]:
    """Train a variant with one seed, and return a row of metrics for each NFE."""
    config = make_config(variant, seed, flags)
    folder = out / flags.data / f"{config.train_flops:g}" / variant
    (run,) = runs.iter_runs(config, folder)
    runs.ensure_codec(config, folder)
    began = time.monotonic()
    finished = runs.train_run(config, folder, run)
    trained = time.monotonic() - began
    settings.apply_overrides(finished.system.config, flags.sampling)
    rows = []
    for nfe in flags.nfe:
        figures = measure(finished.system, finished.params, nfe, flags)
        tried = (
            flags.data,
            flags.paradigm,
            variant,
            seed,
            config.train_flops,
            flags.documents,
            flags.num_documents,
            nfe,
            list(flags.sampling),
        )
        extra = {"train_seconds": trained, "steps": finished.system.config.steps}
        rows.append({**dict(zip(ROW_KEYS, tried, strict=True)), **extra, "figures": figures})
    return rows


def measure(
    system: system_lib.System, params: PyTree, nfe: int, flags: argparse.Namespace
) -> dict[str, float]:
    """Return the metrics of one model at one NFE, on one set of documents."""
    config, place = system.config, DOCUMENT_SETS[flags.documents]
    grid = evaluate.time_grid(system, params)
    generator = Generator(system, params)
    seed = config.seed + 1000 * (place + 1)
    figures = {}
    if flags.paradigm in CONDITIONAL_LOSSES:
        figures |= conditional_losses(system, params)
    for task in system_lib.supported_suite(system).tasks:
        if task.name in TASKS:
            plan = evaluate.task_plan(system, task, nfe, grid)
            scores = task.score(_generate(generator, task.prompts, plan, seed, config))
            figures |= {**scores.metrics, **scores.unbounded}
    plan = sampling.eval_plan(config, system.paradigm, nfe, grid)
    count = flags.num_documents
    documents = _generate(generator, [Document((Gap("document"),))] * count, plan, seed, config)
    scores = _score_documents(config, documents, place * count)
    draws = scores.bootstrap(seed)["interleaved_score"]
    low, high = np.quantile(draws, [0.025, 0.975])
    bounds = {"interleaved_low": float(low), "interleaved_high": float(high)}
    return figures | {**scores.metrics, **scores.unbounded} | bounds


def _score_documents(
    config: ml_collections.ConfigDict, documents: Sequence[Document], skip: int
) -> from_scratch.base.MetricResult:
    """Score documents; the real documents to compare with leave out the last `skip` of training."""
    enough = ml_collections.ConfigDict(config)
    enough.evaluation.num_samples = skip + len(documents)
    reference = evaluation.reference_data(enough)
    return from_scratch.score(
        reference.images,
        reference.real[skip:],
        reference.train_texts,
        reference.classifier,
        documents,
    )


def _generate(
    generator: Generator,
    prompts: Sequence[Document],
    plan: sampling.SamplingPlan,
    seed: int,
    config: ml_collections.ConfigDict,
) -> list[Document]:
    batches = generator(prompts, plan, seed=seed, batch=config.evaluation.batch_size)
    return [document for batch in batches for document in batch.documents]


def conditional_losses(system: system_lib.System, params: PyTree) -> dict[str, float]:
    """Return the loss at t=0 of text given the images, and of images given the text.

    The documents are new combinations of names that are in training.
    """
    losses = {}
    for task, term, name in (
        ("image_to_text", "text", "loss_text_given_image"),
        ("text_to_image", "image", "loss_image_given_text"),
    ):
        paradigm = dataclasses.replace(
            system.paradigm.at_shared_time, task_mixture=tasks.single_task(task)
        )
        held_out = dataclasses.replace(system, paradigm=paradigm).eval_losses("combinations")
        with sharding.mesh_context(system.mesh):
            losses[name] = float(held_out.at_time(params, 0.0)[term].compute())
    return losses


def format_table(rows: Sequence[Row]) -> str:
    """Format the rows as a Markdown table."""
    lines = [
        "| variant | seed | NFE | " + " | ".join(TABLE_METRICS) + " |",
        "|---" * (len(TABLE_METRICS) + 3) + "|",
    ]
    for row in rows:
        figures = row["figures"]
        values = (f"{figures[name]:.3f}" if name in figures else "–" for name in TABLE_METRICS)
        lines.append(
            f"| {row['variant']} | {row['seed']} | {row['nfe']} | " + " | ".join(values) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    report.run_main(main)
