"""The learning rates of configs/compare.py, tuned alike: `python -m benchmarks.rates`.

Each paradigm is trained at each rate, by default with the FLOPs of the comparison, and measured as
it is there. With fewer FLOPs higher rates look better than they are. What is finished is not done
again, so that one rate after another may be asked for.
"""

import argparse
import pathlib

import ml_collections
from etils import epath

from benchmarks import report
from configs import compare
from oneflow_jax import host, logs, registry, workdir
from oneflow_jax.comparison import contestants, measures, run

SHOWN = (
    "interleaved",
    "text_valid",
    "text_to_image",
    "image_to_text",
    "kid",
    "heldout_text",
    "heldout_image",
)

Row = dict[str, object]


def main(argv: list[str] | None = None) -> list[Row]:
    """Trains, measures, prints, writes, and returns the rows: a paradigm at a rate."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("names", nargs="*", default=[*compare.PASSES], help="all if left out")
    flags.add_argument("--rates", type=float, nargs="+", default=[3e-3, 6e-3, 1.2e-2])
    flags.add_argument("--flops", type=float, default=3e13, help="of each training")
    flags.add_argument("--samples", type=int, default=256, help="documents that figures are of")
    flags.add_argument("--out", default="runs/rates", help="folder of runs and figures")
    flags.add_argument("--smoke", action="store_true", help="tiny sizes; figures mean nothing")
    flags = flags.parse_args(argv)
    logs.to_terminal()
    host.keep_freed_memory()
    out = epath.Path(flags.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows = [row for name in flags.names for row in measured(name, flags, out)]
    kept = {"machine": host.machine(), "flops": flags.flops, "rows": rows}
    report.keep(pathlib.Path(out / "rates.json"), kept)
    print(table(rows))
    return rows


def measured(name: str, flags: argparse.Namespace, out: epath.Path) -> list[Row]:
    """The figures of one paradigm, a row for each rate."""
    rows = []
    for rate in flags.rates:
        config = configured(name, rate, flags)
        run.check(config)
        contestants.prepared(config, out)
        folder = out / f"{rate:g}"
        (one,) = contestants.runs(config, folder)
        if name in registry.ON_CODES:  # one codec for all rates
            one.config.codec.path = str(out / contestants.CODEC / workdir.CODEC)
        found = measures.measured(contestants.trained(config, folder, one), config)
        figures = {figure: estimate.value for figure, estimate in found.figures.items()}
        rows.append({"paradigm": name, "rate": rate, "figures": figures})
        print(table(rows), flush=True)
    return rows


def configured(name: str, rate: float, flags: argparse.Namespace) -> ml_collections.ConfigDict:
    """The comparison's configuration with one contestant, at that rate."""
    config = compare.get_config("smoke" if flags.smoke else "full")
    for other in set(compare.PASSES) - {name}:
        del config.contestants[other], config.headline[other]
    config.order = (name,)
    config.flops, config.samples = flags.flops, flags.samples
    for each in (config.contestants[name], config.text_model):
        each.optimizer.learning_rate = rate
    return config


def table(rows: list[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = ["| paradigm | rate | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 2) + "|"]
    for row in rows:
        figures = row["figures"]
        values = (f"{figures[name]:.3f}" if name in figures else "–" for name in SHOWN)
        lines.append(f"| {row['paradigm']} | {row['rate']:g} | " + " | ".join(values) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
