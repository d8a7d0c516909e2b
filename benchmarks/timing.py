"""Timing of several functions ("candidates") in rounds, with matrix products as a reference.

The speed of a machine changes with its temperature and its other load. So each round runs every
candidate once, and ratios compare times of the same round.
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
"""Sizes of square float32 matrix products; the fastest one is taken as the machine's peak."""


@dataclasses.dataclass(frozen=True)
class Quantiles:
    """Median, minimum and maximum of a value over the rounds."""

    median: float
    low: float
    high: float

    def format(self, scale: float = 1.0, digits: int = 1) -> str:
        """Format as `median (low-high)`, with values multiplied by `scale`."""
        median, low, high = (f"{scale * x:.{digits}f}" for x in dataclasses.astuple(self))
        return f"{median} ({low}-{high})"


def summarize(values: Iterable[float]) -> Quantiles:
    """Return median, minimum and maximum of the values of all rounds."""
    values = list(values)
    return Quantiles(statistics.median(values), min(values), max(values))


Rounds = dict[str, list[float]]
"""Seconds of each candidate in each round."""


def time_interleaved(candidates: dict[str, Callable[[], object]], rounds: int) -> Rounds:
    """Time each candidate once per round, after one warm-up call of each.

    A candidate returns arrays; its time ends when the arrays are ready.
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
    """Return candidates for `time_interleaved`: n x n matrix products of 2 n^3 FLOPs."""
    product = jax.jit(jnp.matmul)

    def run(n: int) -> Callable[[], jax.Array]:
        one = jax.random.normal(jax.random.key(n), (n, n), jnp.float32)
        return lambda: product(one, one)

    return {f"matmul_{n}": run(n) for n in sizes}


def peak_flops(seconds: Rounds) -> list[float]:
    """Return, for each round, the FLOP/s of the matrix product whose median FLOP/s is highest."""
    rates = {
        name: [2 * int(name.removeprefix("matmul_")) ** 3 / s for s in times]
        for name, times in seconds.items()
        if name.startswith("matmul_")
    }
    return max(rates.values(), key=statistics.median)


def compile_timed(step: jax.stages.Wrapped, *args: object) -> tuple[jax.stages.Compiled, float]:
    """Compile a function for arguments; return it, and the seconds of tracing and compilation."""
    start = time.perf_counter()
    return step.lower(*args).compile(), time.perf_counter() - start


def memory_usage(step: jax.stages.Compiled) -> dict[str, float]:
    """Return MiB of a program's arguments and temporaries, and the peak of this process."""
    analysis = step.memory_analysis()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = 2**20
    return {
        "arguments_mib": analysis.argument_size_in_bytes / mib,
        "temporaries_mib": analysis.temp_size_in_bytes / mib,
        # Linux reports KiB, macOS reports bytes.
        "process_peak_mib": peak / (mib if sys.platform == "darwin" else 1024),
    }
