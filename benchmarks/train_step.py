"""Speed and memory of the training step: `python -m benchmarks.train_step`."""

import argparse
import dataclasses

import jax

from benchmarks import problem, report, timing
from oneflow_jax.costs import flops
from oneflow_jax.runtime import host, sharding


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = report.make_parser(__doc__, rounds=15).parse_args(argv)
    sizes = report.setup(flags)
    with sharding.mesh_context(problem.single_device_mesh()):
        results = measure(sizes, flags)
    report.print_machine(results["machine"])
    report.print_table("train step, median of rounds (min-max)", _rows(results))
    report.save_json(flags.json, results)
    return results


def measure(sizes: problem.WorkloadSizes, flags: argparse.Namespace) -> dict[str, object]:
    """Measure the time, compile time, FLOP/s and memory of the training step."""
    task = problem.Workload(sizes)
    canvas, state = task.canvas(sizes.batch), task.init_state()
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    step, compile_seconds = timing.compile_timed(task.train_step(), state, canvas)

    def run() -> object:
        nonlocal state
        state, metrics = step(state, canvas)
        return metrics

    squares = (64,) if flags.smoke else timing.MATMUL_SIZES
    seconds = timing.time_interleaved(
        {"step": run} | timing.matmul_candidates(squares), flags.rounds
    )
    peaks = timing.peak_flops(seconds)
    work = flops.train(flops.from_model(task.model, sizes.channels), sizes.batch, sizes.num_slots)
    tokens = sizes.batch * sizes.num_slots
    return {
        "machine": host.machine_info(),
        "sizes": dataclasses.asdict(sizes),
        "rounds": flags.rounds,
        "parameters": parameters,
        "flops": work,
        "compile_seconds": compile_seconds,
        "seconds": timing.summarize(seconds["step"]),
        "tokens_per_second": timing.summarize(tokens / s for s in seconds["step"]),
        "documents_per_second": timing.summarize(sizes.batch / s for s in seconds["step"]),
        "flops_per_second": timing.summarize(work / s for s in seconds["step"]),
        "peak_flops_per_second": timing.summarize(peaks),
        "share_of_peak": timing.summarize(
            work / s / peak for s, peak in zip(seconds["step"], peaks, strict=True)
        ),
        "memory": timing.memory_usage(step),
    }


def _rows(results: dict[str, object]) -> list[report.Row]:
    memory = results["memory"]
    return [
        ("parameters", f"{results['parameters']:,}"),
        ("compile, s", f"{results['compile_seconds']:.1f}"),
        ("step, ms", results["seconds"].format(1e3)),
        ("tokens/s", results["tokens_per_second"].format(digits=0)),
        ("documents/s", results["documents_per_second"].format()),
        ("GFLOP per step", f"{results['flops'] / 1e9:.1f}"),
        ("GFLOP/s", results["flops_per_second"].format(1e-9)),
        ("matmul peak, GFLOP/s", results["peak_flops_per_second"].format(1e-9)),
        ("fraction of peak, %", results["share_of_peak"].format(100)),
        ("step's arguments, MiB", f"{memory['arguments_mib']:.0f}"),
        ("step's temporaries, MiB", f"{memory['temporaries_mib']:.0f}"),
        ("process's peak, MiB", f"{memory['process_peak_mib']:.0f}"),
    ]


if __name__ == "__main__":
    report.run_main(main)
