"""Time of a forward pass in sampling, by paradigm: `python -m benchmarks.paradigms`."""

import argparse
import dataclasses

from benchmarks import problem, report, sample, timing
from oneflow_jax.runtime import host, sharding
from oneflow_jax.samplers import ode
from oneflow_jax.samplers.base import SamplingPlan

NAMES = ("oneflow", "mask_flow", "edit_flow")


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = report.make_parser(__doc__, rounds=15)
    flags.add_argument("--nfe", type=int, default=16, help="forward passes (default: 16)")
    flags = flags.parse_args(argv)
    sizes = report.setup(flags)
    with sharding.mesh_context(problem.single_device_mesh()):
        results = measure(sizes, flags)
    report.print_machine(results["machine"])
    title = f"batch {sizes.batch}, NFE {flags.nfe}, median of rounds (min-max)"
    for name, case in results["cases"].items():
        report.print_table(f"{name}: {title}", [
            ("compile, s", f"{case['compile_seconds']:.1f}"),
            ("ms per forward pass", case["seconds_per_pass"].format(1000)),
            ("ratio to oneflow", case["ratio"].format(digits=2)),
        ])  # fmt: skip
    report.save_json(flags.json, results)
    return results


def measure(sizes: problem.WorkloadSizes, flags: argparse.Namespace) -> dict[str, object]:
    """Measure every paradigm; ratios compare times of the same round."""
    plan = SamplingPlan(ode.make_schedule("euler", flags.nfe))
    candidates, compile_seconds = {}, {}
    for name in NAMES:
        task = problem.Workload(sizes, name)
        params, prompt = task.init_state().params, task.prompt(sizes.batch)
        run, compile_seconds[name] = sample.compile_sampler(task, plan, params, prompt)
        candidates[name] = lambda run=run, inputs=(params, prompt): run(*inputs)
    seconds = timing.time_interleaved(candidates, flags.rounds)
    return {
        "machine": host.machine_info(),
        "sizes": dataclasses.asdict(sizes),
        "rounds": flags.rounds,
        "cases": {
            name: {
                "compile_seconds": compile_seconds[name],
                "seconds_per_pass": timing.summarize(s / flags.nfe for s in seconds[name]),
                "ratio": timing.summarize(
                    s / o for s, o in zip(seconds[name], seconds["oneflow"], strict=True)
                ),
            }
            for name in NAMES
        },
    }


if __name__ == "__main__":
    report.run_main(main)
