"""Distils a flow map from a run of `benchmarks.ablation`: `python -m benchmarks.flow_map`.

The benchmark initializes a run from a finished run of the ablation, trains the flow map
(`paradigm.flow_map`), and measures generated documents with several samplers and NFEs:

    python -m benchmarks.ablation muon+own_slots --flops 3e13
    python -m benchmarks.flow_map muon+own_slots --flops 3e13

A finished run is not trained again, but it is measured again.
"""

import argparse
import copy
import pathlib

from etils import epath

from benchmarks import ablation, report
from oneflow_jax.compare import runs
from oneflow_jax.runtime import host, metric_writer

SAMPLERS = (
    *("jump:1", "jump:2", "jump:4"),
    *("consistency:2", "consistency:4", "consistency:8"),
    *("renoise:4", "renoise:16"),
)
"""Pairs of a sampler and an NFE to measure by default."""

Row = dict[str, object]


def main(argv: list[str] | None = None) -> list[Row]:
    """Train, measure, print, write, and return a row for each sampler."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("variant", help="variant of the ablation whose run is distilled")
    flags.add_argument("--data", default="emoji", choices=[*ablation.DATA_SETS], help="data set")
    flags.add_argument("--flops", type=float, default=3e13, help="training FLOPs of that run")
    flags.add_argument("--seed", type=int, default=0, help="RNG seed of both runs")
    flags.add_argument(
        "--fraction", type=float, default=0.25, help="training FLOPs, as a fraction of --flops"
    )
    flags.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    flags.add_argument(
        "--samplers", nargs="+", default=SAMPLERS, help="pairs sampler:NFE to measure"
    )
    flags.add_argument("--documents", default="selection", choices=[*ablation.DOCUMENT_SETS])
    flags.add_argument("--num_documents", type=int, default=512, help="documents to measure")
    flags.add_argument("--out", default="runs/ablation", help="folder of the ablation's runs")
    flags.add_argument("--smoke", action="store_true", help="tiny sizes, meaningless metrics")
    flags = flags.parse_args(argv)
    flags.paradigm = "oneflow"
    metric_writer.setup_logging()
    host.configure_malloc()
    run = make_run(flags)
    finished = runs.train_one(run)
    rows: list[Row] = []
    for sampler in flags.samplers:
        solver, nfe = sampler.split(":")
        finished.system.config.sampling.solver = solver
        figures = ablation.measure(finished.system, finished.params, int(nfe), flags)
        rows.append({"variant": sampler, "seed": flags.seed, "nfe": int(nfe), "figures": figures})
        print(ablation.format_table(rows), flush=True)
        results = {"machine": host.machine_info(), "fraction": flags.fraction, "rows": rows}
        report.save_json(pathlib.Path(run.folder / "flow_map.json"), results)
    return rows


def make_run(flags: argparse.Namespace) -> runs.TrainingRun:
    """Return the run of the flow map, which starts from the parameters of the ablation's run."""
    config = ablation.make_config(flags.variant, flags.seed, flags)
    where = epath.Path(flags.out).resolve() / flags.data / f"{config.train_flops:g}"
    (parent,) = runs.iter_runs(config, where / flags.variant)
    child = copy.deepcopy(parent.config)
    child.init_from = str(parent.folder)
    child.paradigm.flow_map = True
    child.optimizer.learning_rate = flags.rate
    name = f"{flags.variant}-flow_map-{flags.fraction:g}-{flags.rate:g}"
    folder = runs.run_dir(where / name, parent.name, flags.seed)
    budget = flags.fraction * config.train_flops
    return runs.TrainingRun(parent.name, flags.seed, child, folder, budget)


if __name__ == "__main__":
    report.run_main(main)
