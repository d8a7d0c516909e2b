"""The settings of configs/compare.py, tuned alike: `python -m benchmarks.tuning`.

Each paradigm is trained at each learning rate, by default with the FLOPs of the comparison, and
measured as it is there, once. With fewer FLOPs higher rates look better than they are. What is
finished is not done again, so that one rate after another may be asked for.

    python -m benchmarks.tuning oneflow transfusion --rates 6e-3 1.2e-2
    python -m benchmarks.tuning oneflow --rates 6e-3 --set "paradigm.clock=('power', 3.0)"
"""

import argparse
import json
import pathlib
from collections.abc import Sequence

import ml_collections
from etils import epath

from benchmarks import report, settings
from configs import compare
from oneflow_jax.build import paradigms
from oneflow_jax.compare import measure, run, runs
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import host, metric_writer, workdir

REPORTED_METRICS = (
    "interleaved",
    "text_valid",
    "text_to_image",
    "image_to_text",
    "kid",
    "heldout_text",
    "heldout_image",
)

DEDICATED_FLAGS = {
    "optimizer.learning_rate": "--rates",
    "seed": "--seed",
    "steps": "--flops",
    "evaluation.samples": "--samples",
}
"""Fields that have flags of their own."""

ROW_KEYS = ("paradigm", "rate", "set", "seed", "flops", "samples")
"""What tells one row from another."""

Row = dict[str, object]


def main(argv: list[str] | None = None) -> list[Row]:
    """Trains, measures, prints, writes, and returns the rows: of each paradigm at each rate."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("names", nargs="*", default=[*compare.PASSES], help="all if left out")
    flags.add_argument("--rates", type=float, nargs="+", default=[3e-3, 6e-3, 1.2e-2])
    flags.add_argument("--set", nargs="*", default=[], help="other settings, of all their runs")
    flags.add_argument("--seed", type=int, default=0, help="of parameters, batches and noise")
    flags.add_argument("--flops", type=float, help="of each training")
    flags.add_argument("--samples", type=int, help="documents that figures are of")
    flags.add_argument("--out", default="runs/tuning", help="folder of runs and figures")
    flags.add_argument("--smoke", action="store_true", help="tiny sizes; figures mean nothing")
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
    # Beside what other calls have found.
    every = {json.dumps([row[field] for field in ROW_KEYS]): row for row in (*before, *rows)}
    report.save_json(path, {"machine": host.machine_info(), "rows": [*every.values()]})
    return rows


def _check_flags(flags: argparse.Namespace) -> None:
    """Refuses what would train something else than it is called.

    Raises:
        UserError: a paradigm that is not compared, or a setting that has a flag of its own.
    """
    odd = sorted(set(flags.names) - set(compare.PASSES))
    if odd:
        raise UserError(f"{', '.join(odd)}: compared are {', '.join(compare.PASSES)}.")
    fields = {setting.partition("=")[0] for setting in flags.set}
    taken = sorted(fields & set(DEDICATED_FLAGS))
    if taken:
        given = ", ".join(f"{field} by {DEDICATED_FLAGS[field]}" for field in taken)
        raise UserError(f"--set: give {given}.")


def _override_suffix(assignments: Sequence[str]) -> str:
    return "".join(f",{setting}" for setting in sorted(assignments))


def measure_rate(name: str, rate: float, flags: argparse.Namespace, out: epath.Path) -> Row:
    """The figures of one paradigm at one rate."""
    config = make_config(name, rate, flags)
    run.validate(config)
    runs.ensure_codec(config, out)
    folder = out / f"{rate:g}{_override_suffix(flags.set)}"
    (one,) = runs.iter_runs(config, folder)
    if name in paradigms.USES_IMAGE_TOKENS:  # one codec for all
        one.config.codec.path = str(out / runs.CODEC_DIR / workdir.CODEC)
    found = measure.measure(runs.train_run(config, folder, one), config)
    figures = {figure: estimate.value for figure, estimate in found.figures.items()}
    tried = (name, rate, sorted(flags.set), flags.seed, config.flops, config.samples)
    return {**dict(zip(ROW_KEYS, tried, strict=True)), "figures": figures}


def make_config(name: str, rate: float, flags: argparse.Namespace) -> ml_collections.ConfigDict:
    """The comparison's configuration with one contestant, at that rate and with those settings."""
    config = compare.get_config("smoke" if flags.smoke else "full")
    config.order, config.seeds = (name,), (flags.seed,)
    config.flops = config.flops if flags.flops is None else flags.flops
    config.samples = config.samples if flags.samples is None else flags.samples
    for each in (config.contestants[name], config.text_model):
        each.optimizer.learning_rate = rate
        settings.apply_overrides(each, flags.set)
    return config


def format_table(rows: list[Row]) -> str:
    """The rows as a table of Markdown."""
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
