"""Least seconds per document on TPUs, by paradigm and passes: `python -m benchmarks.roofline`.

Computed, not measured: `oneflow_jax.costs` says what is counted and what is left out.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Hashable

from benchmarks import report
from oneflow_jax.costs import chips, latency, sizes, ways


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Computes, prints, and returns what --json writes."""
    flags = _parser().parse_args(argv)
    cases = [
        _case(name, batch, flags) for name in sizes.NETWORKS for batch in dict.fromkeys(flags.batch)
    ]
    results = {"document": dataclasses.asdict(sizes.DOCUMENT), "cases": cases}
    report.show("document", [(name, f"{n:,}") for name, n in results["document"].items()])
    for case in cases:
        where = f"{case['network']}, batch {case['batch']}, {case['chips']} x {case['chip']}"
        heads = "".join(f"{passes:>9}" for passes in case["passes"])
        report.show(f"{where}: seconds per document by passes", [("", heads), *_seconds(case)])
        title = f"{where}: faster up to so many passes than ..., {flags.picture} a picture"
        report.show(title, _overtaking(case))
    report.keep(flags.json, results)
    return results


def _parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--chip", choices=chips.CHIPS, default="v4", help="v4")
    flags.add_argument("--batch", type=int, nargs="+", default=(1, 8, 64), help="1 8 64")
    flags.add_argument(
        "--passes", type=int, nargs="+", default=(8, 16, 32, 64),
        help="of the document, or of each picture where words come first; 8 16 32 64",
    )  # fmt: skip
    flags.add_argument(
        "--picture", type=int, default=16, help="passes of each picture to overtake; 16"
    )
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    return flags


def _case(name: str, batch: int, flags: argparse.Namespace) -> dict[str, object]:
    """One network and batch, all ways on as many chips as the one that needs most."""
    setting = latency.Setting(sizes.NETWORKS[name], sizes.DOCUMENT, batch, chips.CHIPS[flags.chip])
    needed = {n: latency.chips_needed(way, setting) for n, way in ways.WAYS.items()}
    setting = latency.with_chips(setting, ways.WAYS.values())
    limits = {
        n: latency.seconds(way, flags.picture, setting)
        for n, way in ways.WAYS.items()
        if way.cached
    }
    return {
        "network": name,
        "parameters": setting.network.parameters,
        "batch": batch,
        "chip": flags.chip,
        "chips": setting.chips,
        "chips_needed": needed,
        "passes": flags.passes,
        "seconds": {
            n: [latency.seconds(way, passes, setting) for passes in flags.passes]
            for n, way in ways.WAYS.items()
        },
        "overtaking": {
            n: {other: latency.overtaking(way, limit, setting) for other, limit in limits.items()}
            for n, way in ways.WAYS.items()
            if not way.cached
        },
    }


def _seconds(case: dict[str, object]) -> list[report.Row]:
    rows = {name: "".join(f"{s:9.3f}" for s in times) for name, times in case["seconds"].items()}
    return _together(rows)


def _overtaking(case: dict[str, object]) -> list[report.Row]:
    rows = {
        name: ", ".join(f"{other} {most or 'never'}" for other, most in _together(than))
        for name, than in case["overtaking"].items()
    }
    return _together(rows)


def _together(rows: dict[str, Hashable]) -> list[tuple[str, Hashable]]:
    """The rows, those that say the same under one name."""
    names: dict[Hashable, list[str]] = {}
    for name, value in rows.items():
        names.setdefault(value, []).append(name)
    return [(", ".join(same), value) for value, same in names.items()]


if __name__ == "__main__":
    report.run(main)
