"""Timing in interleaved rounds, beside the fastest matrix product of the same rounds.

A machine's speed wanders with its temperature and its other users. So every round runs every
contestant once, and ratios are taken within a round.
"""

import dataclasses
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

MATMUL_SIZES = (512, 1024, 2048)
"""Sizes of the square float32 products; the fastest stands for the machine's peak."""


@dataclasses.dataclass(frozen=True)
class Quantiles:
    """Median, least and greatest of the rounds."""

    median: float
    low: float
    high: float

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """`median (low-high)` in units of 1 / scale."""
        median, low, high = (f"{scale * x:.{digits}f}" for x in dataclasses.astuple(self))
        return f"{median} ({low}-{high})"


def summarize(values: Iterable[float]) -> Quantiles:
    """The spread of some rounds."""
    values = list(values)
    return Quantiles(statistics.median(values), min(values), max(values))


Rounds = dict[str, list[float]]
"""Seconds of each contestant in each round."""


def time_interleaved(candidates: dict[str, Callable[[], object]], rounds: int) -> Rounds:
    """Seconds that each contestant takes in each round; all of them warm up once before.

    A contestant returns arrays, which are waited for.
    """
    for run in candidates.values():
        jax.block_until_ready(run())
    seconds: Rounds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def matmul_candidates(sizes: tuple[int, ...] = MATMUL_SIZES) -> dict[str, Callable[[], jax.Array]]:
    """Contestants for `time_interleaved`: products of n x n matrices, 2 n^3 FLOPs each."""
    product = jax.jit(jnp.matmul)

    def run(n: int) -> Callable[[], jax.Array]:
        one = jax.random.normal(jax.random.key(n), (n, n), jnp.float32)
        return lambda: product(one, one)

    return {f"matmul_{n}": run(n) for n in sizes}


def peak_flops(seconds: Rounds) -> list[float]:
    """FLOP/s of the fastest of `matmul_candidates` (by its median) in each round."""
    rates = {
        name: [2 * int(name.removeprefix("matmul_")) ** 3 / s for s in times]
        for name, times in seconds.items()
        if name.startswith("matmul_")
    }
    return max(rates.values(), key=statistics.median)


def compile_timed(step: jax.stages.Wrapped, *args: object) -> tuple[jax.stages.Compiled, float]:
    """The function compiled for these arguments, and the seconds that tracing and XLA took."""
    start = time.perf_counter()
    return step.lower(*args).compile(), time.perf_counter() - start


def memory_usage(step: jax.stages.Compiled) -> dict[str, float]:
    """MiB: the executable's arguments and temporaries, and this process's peak so far."""
    analysis = step.memory_analysis()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = 2**20
    return {
        "arguments_mib": analysis.argument_size_in_bytes / mib,
        "temporaries_mib": analysis.temp_size_in_bytes / mib,
        # Linux counts in KiB, macOS in bytes.
        "process_peak_mib": peak / (mib if sys.platform == "darwin" else 1024),
    }
