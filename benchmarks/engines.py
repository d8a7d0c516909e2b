"""Speed of preparing own data by the local engine and by Apache Beam on this machine.

    python -m benchmarks.engines

Both engines prepare the same JSON lines and JPEGs, in alternating rounds, with the same number of
processes. The benchmark checks that both give the same documents.
"""

import argparse
import collections
import pathlib
import tempfile
import time
from typing import Any

from benchmarks import input as reading
from benchmarks import report, timing
from oneflow_jax.data.beam import engine
from oneflow_jax.data.custom import manifest, prepare
from oneflow_jax.data.custom.reader import Settings
from oneflow_jax.runtime import host


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--documents", type=int, default=4_000)
    flags.add_argument("--side", type=int, default=400, help="height and width of an image")
    flags.add_argument("--processes", type=int, default=2)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--smoke", action="store_true", help="tiny sizes, one round")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    options = flags.parse_args(argv)
    if options.smoke:
        options.documents, options.side, options.rounds = 30, 20, 1
    beam = engine.BeamEngine("DirectRunner", num_workers=options.processes)
    seconds: dict[str, list[float]] = {"local": [], "DirectRunner": []}
    with tempfile.TemporaryDirectory(prefix="engines-") as folder:
        root = pathlib.Path(folder)
        size = reading.write_documents(root / "own", options.documents, options.side)
        settings = Settings(path=str(root / "own"), pixels=32)
        for number in range(options.rounds):
            counts = []
            for name, used in (("local", None), ("DirectRunner", beam)):
                began = time.perf_counter()
                data = str(root / f"{name}-{number}")
                prepared = prepare.prepare(settings, data, options.processes, engine=used)
                seconds[name].append(time.perf_counter() - began)
                counts.append(_count_documents(prepared))
            if counts[0] != counts[1]:
                raise AssertionError("the engines give different documents")
    rates = {
        name: timing.summarize(options.documents / value for value in values)
        for name, values in seconds.items()
    }
    rows = [(name, spread.format(digits=1)) for name, spread in rates.items()]
    title = f"documents a second, {options.processes} processes, median of rounds (min-max)"
    report.print_table(title, rows)
    results = {
        "machine": host.machine_info(),
        "documents": options.documents,
        "megabytes": size / 1e6,
        "processes": options.processes,
        "seconds": seconds,
        "documents a second": rates,
    }
    report.save_json(options.json, results)
    return results


def _count_documents(folder: pathlib.Path) -> dict[str, collections.Counter[bytes]]:
    """Count the documents of each split by their bytes."""
    return {
        split: collections.Counter(prepare.open_folder(folder, split).files[:])
        for split in manifest.SPLITS
    }


if __name__ == "__main__":
    report.run_main(main)
