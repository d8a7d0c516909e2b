"""Tuning of the learning rates in configs/compare.py: `python -m benchmarks.tuning`.

The benchmark trains each paradigm once at each learning rate, and computes the metrics of the
comparison. By default, a run has the FLOPs budget of the comparison; a smaller budget favors
learning rates that are too high for the full budget. Finished runs are not repeated, so a later
call can add learning rates.

    python -m benchmarks.tuning oneflow transfusion --rates 6e-3 1.2e-2
    python -m benchmarks.tuning oneflow --rates 6e-3 --set "paradigm.time_sampler=('power', 3.0)"
"""

import argparse
import json
import pathlib
from collections.abc import Sequence

import ml_collections
from etils import epath

from benchmarks import report, settings
from oneflow_jax.build import paradigms
from oneflow_jax.compare import measure, run, runs
from oneflow_jax.configs import compare
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import host, metric_writer, workdir

REPORTED_METRICS = (
    "interleaved_score",
    "template_validity",
    "text_to_image",
    "image_to_text",
    "kid_efficientnet",
    "eval_loss_text",
    "eval_loss_image",
)

DEDICATED_FLAGS = {
    "optimizer.learning_rate": "--rates",
    "seed": "--seed",
    "steps": "--flops",
    "evaluation.num_samples": "--samples",
}
"""Configuration keys that `--set` refuses, each with the flag that sets it."""

ROW_KEYS = ("paradigm", "rate", "set", "seed", "flops", "samples")
"""Fields that identify a row of tuning.json; a new row replaces one with equal values."""

Row = dict[str, object]


def main(argv: list[str] | None = None) -> list[Row]:
    """Train, measure, print, write, and return a row for each paradigm and learning rate."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument(
        "names", nargs="*", default=[*compare.PASSES], help="paradigms to train (default: all)"
    )
    flags.add_argument("--rates", type=float, nargs="+", default=[3e-3, 6e-3, 1.2e-2])
    flags.add_argument("--set", nargs="*", default=[], help="overrides key=value for all runs")
    flags.add_argument("--seed", type=int, default=0, help="RNG seed of the runs")
    flags.add_argument("--flops", type=float, help="training FLOPs (default: configs/compare.py)")
    flags.add_argument("--samples", type=int, help="number of documents per task (default: 256)")
    flags.add_argument("--out", default="runs/tuning", help="folder of runs and metrics")
    flags.add_argument("--smoke", action="store_true", help="tiny sizes, meaningless metrics")
    flags = flags.parse_args(argv)
    _check_flags(flags)
    metric_writer.setup_logging()
    host.configure_malloc()
    out = epath.Path(flags.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in flags.names:
        for rate in flags.rates:
            rows.append(measure_rate(name, rate, flags, out))
            print(format_table(rows), flush=True)
    path = pathlib.Path(out / "tuning.json")
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    # Keep the rows of earlier calls.
    merged = {json.dumps([row[field] for field in ROW_KEYS]): row for row in (*before, *rows)}
    report.save_json(path, {"machine": host.machine_info(), "rows": [*merged.values()]})
    return rows


def _check_flags(flags: argparse.Namespace) -> None:
    """Check the names of paradigms and the overrides.

    Raises:
        UserError: a paradigm is not part of the comparison, or an override sets a key that has a
            flag of its own.
    """
    odd = sorted(set(flags.names) - set(compare.PASSES))
    if odd:
        raise UserError(
            f"{', '.join(odd)}: not part of the comparison. Choose from "
            f"{', '.join(compare.PASSES)}."
        )
    fields = {setting.partition("=")[0] for setting in flags.set}
    taken = sorted(fields & set(DEDICATED_FLAGS))
    if taken:
        hints = ", ".join(f"{field} with {DEDICATED_FLAGS[field]}" for field in taken)
        raise UserError(f"--set does not accept {', '.join(taken)}. Set {hints}.")


def _override_suffix(assignments: Sequence[str]) -> str:
    return "".join(f",{setting}" for setting in sorted(assignments))


def measure_rate(name: str, rate: float, flags: argparse.Namespace, out: epath.Path) -> Row:
    """Train one paradigm at one learning rate and return its row of metrics."""
    config = make_config(name, rate, flags)
    run.validate(config)
    runs.ensure_codec(config, out)
    folder = out / f"{rate:g}{_override_suffix(flags.set)}"
    (one,) = runs.iter_runs(config, folder)
    if name in paradigms.USES_IMAGE_TOKENS:  # All runs use the same codec.
        one.config.codec.path = str(out / runs.CODEC_DIR / workdir.CODEC)
    metrics = measure.measure(runs.train_run(config, folder, one), config)
    figures = {figure: estimate.value for figure, estimate in metrics.metrics.items()}
    tried = (name, rate, sorted(flags.set), flags.seed, config.train_flops, config.num_samples)
    return {**dict(zip(ROW_KEYS, tried, strict=True)), "figures": figures}


def make_config(name: str, rate: float, flags: argparse.Namespace) -> ml_collections.ConfigDict:
    """Return the comparison's configuration with one model, its learning rate and overrides."""
    config = compare.get_config("smoke" if flags.smoke else "full")
    config.models_shown, config.seeds = (name,), (flags.seed,)
    config.train_flops = config.train_flops if flags.flops is None else flags.flops
    config.num_samples = config.num_samples if flags.samples is None else flags.samples
    for each in (config.models[name], config.text_model):
        each.optimizer.learning_rate = rate
        settings.apply_overrides(each, flags.set)
    return config


def format_table(rows: list[Row]) -> str:
    """Format the rows as a Markdown table."""
    lines = [
        "| paradigm | rate | " + " | ".join(REPORTED_METRICS) + " |",
        "|---" * (len(REPORTED_METRICS) + 2) + "|",
    ]
    for row in rows:
        figures = row["figures"]
        values = (f"{figures[name]:.3f}" if name in figures else "–" for name in REPORTED_METRICS)
        lines.append(f"| {row['paradigm']} | {row['rate']:g} | " + " | ".join(values) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    report.run_main(main)
