"""What all benchmarks say of the machine, and how they print and keep results."""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable

from benchmarks import problem
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import host

Row = tuple[str, str]
"""A name and its value, as printed."""


def make_parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """A command line with the flags that all benchmarks share."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--rounds", type=int, default=rounds, help=f"interleaved rounds; {rounds}")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags.add_argument("--smoke", action="store_true", help="tiny sizes, one round")
    flags.add_argument(
        "--plain_malloc",
        action="store_true",
        help="leave glibc's malloc as it is (see oneflow_jax.host)",
    )
    problem.add_flags(flags)
    return flags


def setup(flags: argparse.Namespace) -> problem.WorkloadSizes:
    """The sizes to measure, after this process has been set up as `oneflow_jax` itself is."""
    if flags.smoke:
        flags.rounds = 1
    if not flags.plain_malloc:
        host.configure_malloc()
    return problem.parse_sizes(flags)


def print_table(title: str, rows: list[Row]) -> None:
    """Prints a titled table of two columns."""
    width = max(len(name) for name, _ in rows)
    print(f"\n{title}")
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def save_json(path: pathlib.Path | None, results: dict[str, object]) -> None:
    """Writes the results as JSON, if a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2, default=dataclasses.asdict) + "\n")


def run_main(main: Callable[[], object]) -> None:
    """Runs a benchmark; a user's mistake ends it with a line, and no traceback."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
