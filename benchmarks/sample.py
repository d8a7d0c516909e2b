"""Speed of sampling, and the overhead of diffrax: `python -m benchmarks.sample`."""

import argparse
import dataclasses
import functools
import statistics
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks import problem, report, timing
from oneflow_jax.canvas import Canvas
from oneflow_jax.costs import flops
from oneflow_jax.runtime import host, sharding
from oneflow_jax.samplers import ode, steps
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.shapes import Array, Float, Int, PyTree
from oneflow_jax.training import update

NFE_VALUES = (8, 16, 32)


def make_bare_stepper(
    velocity: Callable[[Float[Array, ""], PyTree], PyTree], schedule: ode.SolverSchedule
) -> ode.Stepper:
    """Return steps of Euler's method without diffrax: a replacement of `ode.make_stepper`."""
    times = jnp.asarray(schedule.times, jnp.float32)

    def step(number: Int[Array, ""], carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        x, _ = carry
        length = times[number + 1] - times[number]
        return jax.tree.map(lambda x, v: x + length * v, x, velocity(times[number], x)), None

    return ode.Stepper(lambda x: (x, None), step)


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = report.make_parser(__doc__, rounds=7)
    flags.add_argument(
        "--nfe", type=int, nargs="+", default=NFE_VALUES, help="NFE to measure (default: 8 16 32)"
    )
    flags = flags.parse_args(argv)
    sizes = report.setup(flags)
    with sharding.mesh_context(problem.single_device_mesh()):
        results = measure(sizes, flags)
    report.print_machine(results["machine"])
    for case in results["cases"]:
        title = f"batch {case['batch']}, NFE {case['nfe']}, median of rounds (min-max)"
        report.print_table(title, _rows(case))
    report.save_json(flags.json, results)
    return results


def measure(sizes: problem.WorkloadSizes, flags: argparse.Namespace) -> dict[str, object]:
    """Measure sampling at each batch size and NFE."""
    task = problem.Workload(sizes)
    params = task.init_state().params
    squares = (64,) if flags.smoke else timing.MATMUL_SIZES
    cases = [
        _measure_case(task, params, batch, nfe, squares, flags.rounds)
        for batch in dict.fromkeys((sizes.batch, 1))
        for nfe in flags.nfe
    ]
    return {
        "machine": host.machine_info(),
        "sizes": dataclasses.asdict(sizes),
        "rounds": flags.rounds,
        "cases": cases,
    }


def _measure_case(
    workload: problem.Workload,
    params: PyTree,
    batch: int,
    nfe: int,
    matmul_sizes: tuple[int, ...],
    rounds: int,
) -> dict[str, object]:
    canvas = workload.canvas(batch)
    plan = SamplingPlan(ode.make_schedule("euler", nfe))
    through, compile_seconds = compile_sampler(workload, plan, params, canvas)
    with mock.patch.object(ode, "make_stepper", make_bare_stepper):
        beside, _ = compile_sampler(workload, plan, params, canvas)
    candidates = {
        "diffrax": lambda: through(params, canvas),
        "bare": lambda: beside(params, canvas),
    }
    seconds = timing.time_interleaved(candidates | timing.matmul_candidates(matmul_sizes), rounds)
    network, slots = (
        flops.from_model(workload.model, workload.sizes.channels),
        workload.sizes.num_slots,
    )
    work = nfe * flops.forward(network, batch * slots, keys=slots)
    peaks = timing.peak_flops(seconds)
    both = list(zip(seconds["diffrax"], seconds["bare"], strict=True))
    return {
        "batch": batch,
        "nfe": nfe,
        "compile_seconds": compile_seconds,
        "seconds_per_document": timing.summarize(s / batch for s in seconds["diffrax"]),
        "bare_seconds_per_document": timing.summarize(s / batch for s in seconds["bare"]),
        "overhead": timing.summarize(one / bare - 1 for one, bare in both),
        "overhead_of_medians": statistics.median(seconds["diffrax"])
        / statistics.median(seconds["bare"])
        - 1,
        "tokens_per_second": timing.summarize(
            batch * workload.sizes.num_slots / s for s in seconds["diffrax"]
        ),
        "peak_flops_per_second": timing.summarize(peaks),
        "share_of_peak": timing.summarize(
            work / s / peak for s, peak in zip(seconds["diffrax"], peaks, strict=True)
        ),
        "memory": timing.memory_usage(through),
    }


def compile_sampler(
    workload: problem.Workload, plan: SamplingPlan, params: PyTree, canvas: Canvas
) -> tuple[Callable[[PyTree, Canvas], Canvas], float]:
    """Compile the sampler (params, canvas) -> canvas; return it and the compile time in seconds."""

    def sample(params: PyTree, canvas: Canvas) -> Canvas:
        apply = functools.partial(workload.model.apply, {"params": params})
        keys = update.per_row_keys(jax.random.key(1), canvas.ids.shape[0])
        table = apply(method="embedding_table")
        return steps.sample(workload.paradigm.sampler(apply, table, keys, canvas, plan)).canvas

    return timing.compile_timed(jax.jit(sample), params, canvas)


def _rows(case: dict[str, object]) -> list[report.Row]:
    memory = case["memory"]
    return [
        ("compile, s", f"{case['compile_seconds']:.1f}"),
        ("s per document", case["seconds_per_document"].format(digits=3)),
        ("s per document, bare loop", case["bare_seconds_per_document"].format(digits=3)),
        ("diffrax's overhead, %", case["overhead"].format(100)),
        ("tokens/s", case["tokens_per_second"].format(digits=0)),
        ("matmul peak, GFLOP/s", case["peak_flops_per_second"].format(1e-9)),
        ("fraction of peak, %", case["share_of_peak"].format(100)),
        ("arguments, temporaries, MiB",
         f"{memory['arguments_mib']:.0f}, {memory['temporaries_mib']:.0f}"),
        ("process's peak, MiB", f"{memory['process_peak_mib']:.0f}"),
    ]  # fmt: skip


if __name__ == "__main__":
    report.run_main(main)
