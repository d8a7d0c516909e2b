"""Order in which a model generates the words and images of a document.

    python -m benchmarks.order documents quickstart quickstart:mask_flow

The benchmark samples documents of text and images without a prompt. It prints the mean time t at
which words appear, separately for content words, for words of the sentence templates, and for
inserted images. It also prints Spearman's rank correlation between the mean time of a word and its
frequency in the training data.
"""

import argparse
import collections
import pathlib

import numpy as np
from scipy import stats

from benchmarks import quality, report
from oneflow_jax import evaluate
from oneflow_jax.build import data, sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import sentences
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import host, metric_writer
from oneflow_jax.viewer import from_samples, token_times

WORD_CLASSES = ("naming", "grammar", "picture")


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("configs", nargs="+", help="configurations, such as quickstart:edit_flow")
    flags.add_argument("--samples", type=int, default=128)
    flags.add_argument("--steps", type=int, default=32)
    flags.add_argument(
        "--set", nargs="*", default=[], help="overrides, such as sampling.image_guidance_scale=2.0"
    )
    flags.add_argument("--runs", default="runs", help="folder of trained runs (default: runs)")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags = flags.parse_args(argv)
    metric_writer.setup_logging()
    results = {"machine": host.machine_info(), "runs": {}}
    for name in flags.configs:
        results["runs"][name] = means = measure(name, flags)
        rows = [
            (kind, f"{mean:.3f} +- {error:.3f}") for kind, (mean, error) in means["mean"].items()
        ]
        rows.append(("rank correlation with frequency", f"{means['correlation']:.2f}"))
        rows.append(("words compared", str(means["words"])))
        report.print_table(f"{name}: mean time t at which words appear", rows)
    report.save_json(flags.json, results)
    return results


def measure(name: str, flags: argparse.Namespace) -> dict[str, object]:
    """Measure the mean times at which words appear, by word class, with standard errors."""
    config = quality.load_config(name, [*flags.set, f"sampling.steps={flags.steps}"])
    folder = quality.run_dir(config, flags.runs)
    system = system_lib.system(config, folder)
    params = evaluate.load_ema_params(system, folder)
    plan = sampling.sampling_plan(config, system.paradigm, evaluate.time_grid(system, params))
    gaps = (Gap("document"),) if system.layout.variable_length else (Gap("text"), Gap("image"))
    prompts = [Document(gaps)] * flags.samples
    word_times: list[token_times.WordTime] = []
    run = {"seed": 0, "batch": 16, "record": True}
    for batch in Generator(system, params)(prompts, plan, **run):
        titles = [""] * len(batch.documents)
        # `build_views` divides times by `end`, so that they are in [0, 1]; the loop undoes it.
        end = max(1.0, float(batch.trajectory.run_times[-1]))
        for view in from_samples.build_views(system.layout, batch.trajectory, titles, titles):
            word_times += [
                token_times.WordTime(one.word, min(1.0, end * one.time))
                for one in token_times.compute_word_times(view)
            ]
    times = collections.defaultdict(list)
    for one in word_times:
        times[classify_word(one.word)].append(one.time)
    shown = data.open_split(config, "train")
    counts = collections.Counter(
        word for n in range(min(len(shown), 2_000)) for word in shown[n].text().split()
    )
    means = {
        word: mean
        for word, (mean, _) in token_times.average_times(word_times).items()
        if word in counts
    }
    often = [np.log(counts[word]) for word in means]
    return {
        "mean": {
            kind: (float(np.mean(times[kind])), float(stats.sem(times[kind])))
            for kind in WORD_CLASSES
            if len(times[kind]) > 1
        },
        "correlation": float(stats.spearmanr(often, list(means.values())).statistic),
        "words": len(means),
    }


def classify_word(word: str) -> str:
    """Return the class of a word: image, word of the sentence templates, or content word."""
    if word == token_times.IMAGE_LABEL:
        return "picture"
    return "grammar" if word.strip(":,") in sentences.TEMPLATE_WORDS else "naming"


if __name__ == "__main__":
    report.run_main(main)
