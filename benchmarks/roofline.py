"""Roofline time per document on TPUs, by paradigm and NFE: `python -m benchmarks.roofline`.

The times are computed, not measured. `oneflow_jax.costs.latency` describes the roofline model.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Hashable

from benchmarks import report
from oneflow_jax.costs import chips, generation, latency, model_sizes


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Compute, print, and return the results that --json writes."""
    flags = _make_parser().parse_args(argv)
    cases = [
        _compute_case(name, batch, flags)
        for name in model_sizes.NETWORKS
        for batch in dict.fromkeys(flags.batch)
    ]
    results = {"document": dataclasses.asdict(model_sizes.DOCUMENT), "cases": cases}
    report.print_table("document", [(name, f"{n:,}") for name, n in results["document"].items()])
    for case in cases:
        where = f"{case['network']}, batch {case['batch']}, {case['chips']} x {case['chip']}"
        heads = "".join(f"{passes:>9}" for passes in case["passes"])
        report.print_table(
            f"{where}: seconds per document by NFE", [("", heads), *_latency_rows(case)]
        )
        title = (
            f"{where}: largest NFE that beats another paradigm with NFE {flags.picture} per image"
        )
        report.print_table(title, _crossover_rows(case))
    report.save_json(flags.json, results)
    return results


def _make_parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument(
        "--chip", choices=chips.CHIPS, default="v4", help="kind of chip (default: v4)"
    )
    flags.add_argument(
        "--batch", type=int, nargs="+", default=(1, 8, 64), help="batch sizes (default: 1 8 64)"
    )
    flags.add_argument(
        "--nfe", type=int, nargs="+", default=(8, 16, 32, 64),
        help="NFE per document, or per image if text is autoregressive (default: 8 16 32 64)",
    )  # fmt: skip
    flags.add_argument(
        "--picture",
        type=int,
        default=16,
        help="NFE per image of the models to compare with (default: 16)",
    )
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    return flags


def _compute_case(name: str, batch: int, flags: argparse.Namespace) -> dict[str, object]:
    """Compute the times of all paradigms for a network and batch, on equally many chips."""
    setting = latency.Deployment(
        model_sizes.NETWORKS[name], model_sizes.DOCUMENT, batch, chips.CHIPS[flags.chip]
    )
    needed = {n: latency.min_chips(way, setting) for n, way in generation.PROFILES.items()}
    setting = latency.fit_chips(setting, generation.PROFILES.values())
    limits = {
        n: latency.seconds(way, flags.picture, setting)
        for n, way in generation.PROFILES.items()
        if way.uses_kv_cache
    }
    return {
        "network": name,
        "parameters": setting.network.num_parameters,
        "batch": batch,
        "chip": flags.chip,
        "chips": setting.num_chips,
        "chips_needed": needed,
        "passes": flags.nfe,
        "seconds": {
            n: [latency.seconds(way, passes, setting) for passes in flags.nfe]
            for n, way in generation.PROFILES.items()
        },
        "overtaking": {
            n: {
                cached_name: latency.crossover_nfe(way, limit, setting)
                for cached_name, limit in limits.items()
            }
            for n, way in generation.PROFILES.items()
            if not way.uses_kv_cache
        },
    }


def _latency_rows(case: dict[str, object]) -> list[report.Row]:
    rows = {name: "".join(f"{s:9.3f}" for s in times) for name, times in case["seconds"].items()}
    return _group_equal_rows(rows)


def _crossover_rows(case: dict[str, object]) -> list[report.Row]:
    rows = {
        name: ", ".join(
            f"{cached_name} {most or 'never'}" for cached_name, most in _group_equal_rows(than)
        )
        for name, than in case["overtaking"].items()
    }
    return _group_equal_rows(rows)


def _group_equal_rows(rows: dict[str, Hashable]) -> list[tuple[str, Hashable]]:
    """Merge rows with equal values into one row, whose name joins their names."""
    names: dict[Hashable, list[str]] = {}
    for name, value in rows.items():
        names.setdefault(value, []).append(name)
    return [(", ".join(same), value) for value, same in names.items()]


if __name__ == "__main__":
    report.run_main(main)
