"""Which words come first: `python -m benchmarks.order documents quickstart quickstart:mask_flow`.

Makes documents of words and pictures from nothing, and prints when the words came: those that name
things, those that only hold a sentence together, and pictures that were born on the way; and how
the mean time of a word goes with how often training shows it (Spearman's rank correlation).
"""

import argparse
import collections
import pathlib

import numpy as np
from scipy import stats

from benchmarks import quality, report
from oneflow_jax import evaluate, generate
from oneflow_jax.build import data, sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import sentences
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.runtime import host, metric_writer
from oneflow_jax.viewer import from_samples, token_times

CLASSES = ("naming", "grammar", "picture")


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measures, prints, and returns what --json writes."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("configs", nargs="+", help="of configs/, as in quickstart:edit_flow")
    flags.add_argument("--samples", type=int, default=128)
    flags.add_argument("--steps", type=int, default=32)
    flags.add_argument("--set", nargs="*", default=[], help="settings, as in sampling.guidance=2.0")
    flags.add_argument("--runs", default="runs", help="folder of the runs, which must be trained")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags = flags.parse_args(argv)
    metric_writer.to_terminal()
    results = {"machine": host.machine(), "runs": {}}
    for name in flags.configs:
        results["runs"][name] = found = measured(name, flags)
        rows = [
            (kind, f"{mean:.3f} +- {error:.3f}") for kind, (mean, error) in found["mean"].items()
        ]
        rows.append(("rank correlation with frequency", f"{found['correlation']:.2f}"))
        rows.append(("words compared", str(found["words"])))
        report.show(f"{name}: mean time of arrival, t", rows)
    report.keep(flags.json, results)
    return results


def measured(name: str, flags: argparse.Namespace) -> dict[str, object]:
    """Times of arrival by class of word, with standard errors."""
    config = quality.configured(name, [*flags.set, f"sampling.steps={flags.steps}"])
    folder = quality.folder_of(config, flags.runs)
    system = system_lib.system(config, folder)
    params = evaluate.averaged(system, folder)
    plan = sampling.sampling(config, system.paradigm, evaluate.spacing(system, params))
    gaps = (Gap("document"),) if system.layout.grows else (Gap("text"), Gap("image"))
    prompts = [Document(gaps)] * flags.samples
    every: list[token_times.Arrival] = []
    for made in generate.Generator(system, params)(prompts, plan, seed=0, batch=16):
        titles = [""] * len(made.documents)
        end = max(1.0, float(made.moments.times[-1]))  # Stories run from 0 to 1.
        for told in from_samples.stories(system.layout, made.moments, titles, titles):
            every += [
                token_times.Arrival(one.word, min(1.0, end * one.time))
                for one in token_times.arrivals(told)
            ]
    times = collections.defaultdict(list)
    for one in every:
        times[class_of(one.word)].append(one.time)
    shown = data.source(config, "train")
    counts = collections.Counter(
        word for n in range(min(len(shown), 2_000)) for word in shown[n].words().split()
    )
    means = {
        word: mean for word, (mean, _) in token_times.mean_times(every).items() if word in counts
    }
    often = [np.log(counts[word]) for word in means]
    return {
        "mean": {
            kind: (float(np.mean(times[kind])), float(stats.sem(times[kind])))
            for kind in CLASSES
            if len(times[kind]) > 1
        },
        "correlation": float(stats.spearmanr(often, list(means.values())).statistic),
        "words": len(means),
    }


def class_of(word: str) -> str:
    """Whether a word names something, or is one that all sentences share."""
    if word == token_times.PICTURE:
        return "picture"
    return "grammar" if word.strip(":,") in sentences.GRAMMAR else "naming"


if __name__ == "__main__":
    report.run(main)
