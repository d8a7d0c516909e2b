"""Accuracy of two classifiers of emoji in styles: `python -m benchmarks.style_judge`.

The benchmark classifies real drawings of pairs of a name and a style that are held out from
training, and shifted, blurred and noisy copies of them. The trained judge has not seen the pairs.
The nearest drawing in pixel space is searched twice: among all drawings, including those of the
pairs, and without those of the pairs. The npm packages must be there (`make emoji-styles`).
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import report
from oneflow_jax.data import emoji_styles
from oneflow_jax.data.labels import LabeledImage
from oneflow_jax.evaluation import image_name_judge, interleaved, label_tasks
from oneflow_jax.evaluation.nearest_image import NearestImage
from oneflow_jax.runtime import host

SEEDS = range(1, 6)
"""RNG seeds of the distorted copies."""

Interval = tuple[float, float, float]
"""Value, and the ends of its 95 % bootstrap interval."""


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--packages", default="data/emoji_styles", help="folder of npm packages")
    flags.add_argument("--names", type=int, default=64, help="number of emoji names (default: 64)")
    flags.add_argument("--styles", nargs="+", default=None, help="drawing styles (default: all)")
    flags.add_argument(
        "--min-styles", type=int, default=5, help="leave out names with fewer styles (default: 5)"
    )
    flags.add_argument("--copies", type=int, help="versions of a drawing that the judge trains on")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags = flags.parse_args(argv)
    chosen = {"styles": tuple(flags.styles)} if flags.styles else {}
    drawings = emoji_styles.Settings(
        path=flags.packages, concepts=flags.names, min_styles=flags.min_styles, **chosen
    ).load_drawings()
    pairs = [drawing for drawing in drawings if drawing.pair_held_out]
    others = [drawing for drawing in drawings if not drawing.pair_held_out]
    labels = [drawing.label for drawing in pairs]
    judge = image_name_judge.Judge.train(others, more_labels=labels, copies=flags.copies)
    accuracy = {
        name: measure_accuracy(classifier, pairs)
        for name, classifier in {
            "judge": judge.classify,
            "nearest drawing": NearestImage.from_images(drawings),
            "nearest without the pairs": NearestImage.from_images(others),
        }.items()
    }
    rows = [
        (f"{name}, {metric}", "{:.2f} ({:.2f} to {:.2f})".format(*each))
        for name, metrics in accuracy.items()
        for metric, each in metrics.items()
    ]
    report.print_table(f"fraction of {len(pairs)} held-out pairs classified correctly", rows)
    results = {"machine": host.machine_info(), "pairs": len(pairs), "accuracy": accuracy}
    report.save_json(flags.json, results)
    return results


def measure_accuracy(
    classifier: interleaved.ImageClassifier, images: Sequence[LabeledImage]
) -> Mapping[str, Interval]:
    """Measure the accuracy of a classifier on unchanged images, and on distorted copies.

    Returns:
        Mean and interval by metric: "clean", "clean_name" and "clean_style" of unchanged images;
        "copies", "copies_name" and "copies_style" of copies. The intervals come from
        resampling the images.
    """
    asked = [image.label for image in images]
    clean = classifier(np.stack([image.pixels for image in images]))
    outcomes = [label_tasks.compare_labels("clean", asked, clean)]
    for seed in SEEDS:
        shown = image_name_judge.classify_copies(classifier, images, seed)
        outcomes.append(label_tasks.compare_labels("copies", asked, shown))
    return {
        metric: report.mean_interval(
            np.mean([one[metric] for one in outcomes if metric in one], axis=0)
        )
        for metric in (*outcomes[0], *outcomes[1])
    }


if __name__ == "__main__":
    report.run_main(main)
