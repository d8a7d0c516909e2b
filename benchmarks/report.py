"""Command line, tables and JSON files of the benchmarks."""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks import problem
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import bootstrap
from oneflow_jax.runtime import host

Row = tuple[str, str]
"""A name and its value, as printed."""


def make_parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the flags that benchmarks of speed share."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument(
        "--rounds", type=int, default=rounds, help=f"number of measurements (default: {rounds})"
    )
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags.add_argument("--smoke", action="store_true", help="tiny sizes, one round, as a test")
    flags.add_argument(
        "--plain_malloc",
        action="store_true",
        help="do not configure glibc's malloc (see oneflow_jax.runtime.host)",
    )
    problem.add_flags(flags)
    return flags


def setup(flags: argparse.Namespace) -> problem.WorkloadSizes:
    """Configure malloc as `oneflow_jax.main` does, and return the sizes to measure."""
    if flags.smoke:
        flags.rounds = 1
    if not flags.plain_malloc:
        host.configure_malloc()
    return problem.parse_sizes(flags)


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of values `[n]` and its 95 % bootstrap interval: mean, low, high."""
    draws = bootstrap.resample(lambda chosen: float(values[chosen].mean()), len(values))
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def print_table(title: str, rows: list[Row]) -> None:
    """Print a table of two columns with a title."""
    width = max(len(name) for name, _ in rows)
    print(f"\n{title}")
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def print_machine(machine: Mapping[str, object]) -> None:
    """Print the table of `host.machine_info()`."""
    print_table("machine", [(name, str(value)) for name, value in machine.items()])


def save_json(path: pathlib.Path | None, results: dict[str, object]) -> None:
    """Write the results as JSON; do nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2, default=dataclasses.asdict) + "\n")


def run_main(main: Callable[[], object]) -> None:
    """Run a benchmark, and report a `UserError` in one line without a traceback."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
