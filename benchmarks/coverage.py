"""How often the interval of a gain contains the true gain: `python -m benchmarks.coverage`.

The gains of documents are simulated: a normal distribution with mean and standard deviation 0.1.
The diagnosis needs a minimum number of held-out documents, because bootstrap intervals over fewer
documents are too narrow (`oneflow_jax.training.diagnosis.MIN_DOCUMENTS`).
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np

from benchmarks import report
from oneflow_jax.training import conditioning

TRUE_GAIN, DEVIATION = 0.1, 0.1


def main(argv: Sequence[str] | None = None) -> dict[int, float]:
    """Simulate, print, and return the coverage for each number of documents."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--documents", type=int, nargs="+", default=[5, 10, 20, 64])
    flags.add_argument("--simulations", type=int, default=4_000)
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags = flags.parse_args(argv)
    coverage = {count: measure_coverage(count, flags.simulations) for count in flags.documents}
    rows = [(f"{count} documents", f"{value:.3f}") for count, value in coverage.items()]
    report.print_table(f"coverage of 95 % intervals, n = {flags.simulations}", rows)
    report.save_json(flags.json, {str(count): value for count, value in coverage.items()})
    return coverage


def measure_coverage(num_documents: int, num_simulations: int) -> float:
    """Return the fraction of simulated intervals that contain the true gain."""
    rng = np.random.default_rng(0)
    hidden = np.ones(num_documents)
    contains = 0
    for seed in range(num_simulations):
        shown = hidden - rng.normal(TRUE_GAIN, DEVIATION, num_documents)
        gain = conditioning.measure_gain(shown, hidden, seed)
        contains += gain.low <= TRUE_GAIN <= gain.high
    return contains / num_simulations


if __name__ == "__main__":
    report.run_main(main)
