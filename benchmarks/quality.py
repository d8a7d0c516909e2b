"""Metrics as functions of NFE and of time: `python -m benchmarks.quality quickstart digits`.

The benchmark trains the configurations whose run does not exist yet. It evaluates each run at each
NFE with each time grid, and writes a table and two plots for each metric.

    python -m benchmarks.quality quickstart quickstart:mask_flow quickstart:edit_flow
    python -m benchmarks.quality digits:edit_flow --nfe 2 4 8 16 --grids uniform sine learned
"""

import argparse
import functools
import importlib
import importlib.util
import pathlib
import time
from collections.abc import Iterator, Sequence

import ml_collections
from etils import epath

from benchmarks import report, settings
from oneflow_jax import evaluate
from oneflow_jax.build import system as system_lib
from oneflow_jax.errors import UserError
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import host, metric_writer, run_lock, workdir
from oneflow_jax.training import checkpoint, loop
from oneflow_jax.viewer import plots

CONFIGURED_GRID = "configured"
"""Value of --grids that selects the time grid of each configuration."""

Row = dict[str, object]


def main(argv: list[str] | None = None) -> list[Row]:
    """Measure, print, write, and return the rows of `quality.json` in --out."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("configs", nargs="+", help="configurations, such as quickstart:edit_flow")
    flags.add_argument("--nfe", type=int, nargs="+", default=[2, 4, 8, 16, 40])
    flags.add_argument("--grids", nargs="+", default=[CONFIGURED_GRID])
    flags.add_argument("--tasks", nargs="+", help="tasks to evaluate (default: all)")
    flags.add_argument(
        "--set", nargs="*", default=[], help="overrides, such as sampling.image_guidance_scale=2.0"
    )
    flags.add_argument("--runs", default="runs", help="folder of all runs (default: runs)")
    flags.add_argument("--out", default="runs/quality", help="folder for quality.json and plots")
    flags = flags.parse_args(argv)
    metric_writer.setup_logging()
    out = epath.Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    rows = [row for name in flags.configs for row in measure(load_config(name, flags.set), flags)]
    report.save_json(
        pathlib.Path(out / "quality.json"), {"machine": host.machine_info(), "rows": rows}
    )
    for figure in sorted({name for row in rows for name in row["figures"]}):
        print(f"\n{figure}\n{format_table(rows, figure)}")
        for across in ("passes", "seconds"):
            path = out / f"{figure}_{across}.png"
            plots.plot_lines(
                path, metric_curves(rows, figure, across), figure, AXIS_LABELS[across], figure
            )
    print(f"\nRows and plots: {out}")
    return rows


AXIS_LABELS = {"passes": "forward passes", "seconds": "seconds per document"}


def load_config(name: str, assignments: Sequence[str]) -> ml_collections.ConfigDict:
    """Load a configuration by name and apply overrides.

    Raises:
        UserError: the file does not exist in configs/, or an override has an unknown key.
    """
    module, _, argument = name.partition(":")
    if importlib.util.find_spec(f"oneflow_jax.configs.{module}") is None:
        raise UserError(f"{name}: there is no configs/{module}.py. Give a name in configs/.")
    make = importlib.import_module(f"oneflow_jax.configs.{module}").get_config
    config = make(argument) if argument else make()
    settings.apply_overrides(config, assignments)
    return config


def run_dir(config: ml_collections.ConfigDict, runs: str) -> epath.Path:
    """Return the folder of a configuration's run in the folder `runs`."""
    return epath.Path(runs).resolve() / config.name


def measure(config: ml_collections.ConfigDict, flags: argparse.Namespace) -> Iterator[Row]:
    """Train a run if necessary, and evaluate it; yield one row per task, time grid and NFE."""
    folder = run_dir(config, flags.runs)
    with run_lock.lock(folder):
        workdir.check_config(folder, config)
        system = system_lib.system(config, folder)
        with checkpoint.Checkpoints(folder) as checkpoints:
            done = checkpoints.latest_step == config.steps
        if not done:
            workdir.save_config(folder, config)
            loop.run(system, folder)
        params = evaluate.load_ema_params(system, folder)
    # The system has a copy of the configuration.
    options = system.config.sampling
    generator, own = Generator(system, params), options.time_grid
    tasks = [
        t
        for t in system_lib.supported_suite(system).tasks
        if not flags.tasks or t.name in flags.tasks
    ]
    if not tasks:
        raise UserError(f"--tasks {' '.join(flags.tasks)}: {config.name} has none of these tasks.")
    for grid in flags.grids:
        options.time_grid = own if grid == CONFIGURED_GRID else grid
        spacing = evaluate.time_grid(system, params)
        for task in tasks:
            for passes in flags.nfe:
                if evaluate.affordable_nfe(system, task, passes) == 0:
                    continue
                plan = evaluate.task_plan(system, task, passes, spacing)
                batch = config.evaluation.batch_size
                run = functools.partial(generator, task.prompts, plan, seed=0, batch=batch)
                next(run())  # The first batch includes compilation, so it is not timed.
                began = time.monotonic()
                documents = [document for batch in run() for document in batch.documents]
                seconds = (time.monotonic() - began) / len(documents)
                figures = dict(task.score(documents).metrics)
                row = {"run": config.name, "grid": grid, "passes": passes, "seconds": seconds}
                print(row, figures, flush=True)
                yield row | {"figures": figures}


def format_table(rows: Sequence[Row], metric: str) -> str:
    """Format one metric as a table: one line per run and time grid, one column per NFE."""
    passes = sorted({row["passes"] for row in rows})
    lines = ["".ljust(36) + "".join(f"{n:>8}" for n in passes)]
    for name, points in metric_curves(rows, metric, "passes").items():
        values = dict(points)
        cells = (f"{values[n]:8.3f}" if n in values else f"{'-':>8}" for n in passes)
        lines.append(name.ljust(36) + "".join(cells))
    return "\n".join(lines)


def metric_curves(
    rows: Sequence[Row], metric: str, x_key: str
) -> dict[str, list[tuple[float, float]]]:
    """Return the points (x, metric) of each run and time grid, sorted by x."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if metric in row["figures"]:
            grid = "" if row["grid"] == CONFIGURED_GRID else f", {row['grid']}"
            points = curves.setdefault(f"{row['run']}{grid}", [])
            points.append((row[x_key], row["figures"][metric]))
    return {name: sorted(points) for name, points in curves.items()}


if __name__ == "__main__":
    report.run_main(main)
