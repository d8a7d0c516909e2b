"""Validity of the metrics of interleaved documents: `python -m benchmarks.judge`.

The benchmark computes the metric `interleaved_score` of real documents in which an increasing
fraction of the images is shuffled, with a bootstrap interval. It also measures the accuracy of two
image classifiers on distorted copies of the images: the trained classifier, and the nearest
neighbor in pixel space.
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np

from benchmarks import report
from oneflow_jax.build import evaluation
from oneflow_jax.configs import compare
from oneflow_jax.evaluation import full_suite, image_name_judge, interleaved
from oneflow_jax.evaluation.nearest_image import NearestImage
from oneflow_jax.runtime import host, metric_writer

SHUFFLED_FRACTIONS = (0.0, 0.1, 0.5, 1.0)
"""Fractions of the images that are shuffled."""

SEEDS = range(1, 6)
"""RNG seeds of the distorted copies."""


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--documents", type=int, default=256)
    flags.add_argument("--data", default="runs/data", help="folder of prepared data sets")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags.add_argument("--smoke", action="store_true", help="few concepts and documents")
    flags = flags.parse_args(argv)
    metric_writer.setup_logging()
    config = compare.paradigm_config("oneflow", smoke=flags.smoke)
    config.data.dir = flags.data
    config.evaluation.num_samples = min(flags.documents, config.source.documents)
    known = evaluation.reference_data(config)
    real = interleaved.score_documents(known.real, known.images, known.classifier)
    judges = {
        "trained judge": known.classifier,
        "nearest in pixels": NearestImage.from_images(known.images),
    }
    results = {
        "machine": host.machine_info(),
        "documents": len(known.real),
        "interleaved_score": {
            f"{share:g}": _score_shuffled(known, real, share) for share in SHUFFLED_FRACTIONS
        },
        "named": {
            name: float(
                np.mean([image_name_judge.accuracy(look, known.images, seed) for seed in SEEDS])
            )
            for name, look in judges.items()
        },
    }
    rows = [
        (f"{float(share):4.0%} shuffled", "{:.2f} ({:.2f} to {:.2f})".format(*each))
        for share, each in results["interleaved_score"].items()
    ]
    report.print_table(f"interleaved_score, {len(known.real)} documents", rows)
    rows = [(name, f"{share:.2f}") for name, share in results["named"].items()]
    report.print_table(
        f"fraction of distorted copies of {len(known.images)} concepts named correctly", rows
    )
    report.save_json(flags.json, results)
    return results


def _score_shuffled(
    references: full_suite.ReferenceData,
    real_scores: Sequence[interleaved.DocumentScores],
    fraction: float,
) -> tuple[float, float, float]:
    """Return `interleaved_score` of real documents with shuffled images, and its 95 % interval."""
    documents = interleaved.shuffle_images(references.real, fraction, seed=0)
    scores = interleaved.score_documents(documents, references.images, references.classifier)
    low, high = np.percentile(
        interleaved.bootstrap_metrics(scores, real_scores)["interleaved_score"], (2.5, 97.5)
    )
    return (
        interleaved.compute_metrics(scores, real_scores)["interleaved_score"],
        float(low),
        float(high),
    )


if __name__ == "__main__":
    report.run_main(main)
