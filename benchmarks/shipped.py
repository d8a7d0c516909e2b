"""Measures the shipped model where `--mode=evaluate` does not: documents of two subjects, seconds.

    python -m benchmarks.shipped

In the first task, the text names two random subjects, and both images must look like their names.
In the second task, the model writes both texts and draws both images; both texts must be names that
it was trained on, and both images must look like these names. An image looks like the nearest of
the training images. The seconds are those of two new processes: the first one compiles, and
the second one loads the compiled programs.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

import oneflow_jax as of
from benchmarks import report
from oneflow_jax.data import emoji, emoji_concepts, sentences
from oneflow_jax.evaluation import bootstrap
from oneflow_jax.evaluation.nearest_image import NearestImage

TIMING = """
import json, time
begin = time.monotonic()
import oneflow_jax as of
model = of.load(of.PRETRAINED)
seconds = {"import and load": time.monotonic() - begin}
for name in ("first document", "second document"):
    begin = time.monotonic()
    model.generate("a picture of a tiger: <image>", steps=4)
    seconds[name] = time.monotonic() - begin
print(json.dumps(seconds))
"""


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--documents", type=int, default=300, help="documents of each task")
    flags.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16])
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags = flags.parse_args(argv)
    results: dict[str, object] = {"seconds": measure_seconds()}
    report.print_table("seconds", [(k, f"{v:.2f}") for k, v in results["seconds"].items()])
    model = of.load(of.PRETRAINED)
    concepts = load_concepts(model)
    classifier = NearestImage.from_images(concepts)
    names = [one.label for one in concepts]
    for steps in flags.steps:
        tasks = {
            "two subjects": score_two_subjects(model, names, classifier, steps, flags),
            "two texts and images": score_two_texts(model, names, classifier, steps, flags),
        }
        results[f"{steps} steps"] = {task: summarize(right) for task, right in tasks.items()}
        print(json.dumps({f"{steps} steps": results[f"{steps} steps"]}), flush=True)
    report.save_json(flags.json, results)
    return results


def load_concepts(model: of.Model) -> list[emoji_concepts.Concept]:
    """Return the names on which a model of emoji was trained, with their images."""
    settings = {key: value for key, value in model.config.source.items() if key != "name"}
    return [one for one in emoji.Settings(**settings).load_concepts() if one.in_training]


def score_two_subjects(
    model: of.Model,
    names: Sequence[str],
    classifier: NearestImage,
    steps: int,
    flags: argparse.Namespace,
) -> np.ndarray:
    """Return for each document whether both images look like their names, bool `[n]`."""
    rng = np.random.default_rng(flags.seed)
    asked = [rng.choice(names, 2, replace=False) for _ in range(flags.documents)]
    prompts = [
        "first {} <image> , then {} <image>".format(*map(sentences.noun_phrase, pair))
        for pair in asked
    ]
    documents = model.generate_batch(prompts, steps=steps, seed=flags.seed)
    return np.array(
        [shows(document, pair, classifier) for document, pair in zip(documents, asked, strict=True)]
    )


def score_two_texts(
    model: of.Model,
    names: Sequence[str],
    classifier: NearestImage,
    steps: int,
    flags: argparse.Namespace,
) -> np.ndarray:
    """Return for each document whether its texts are names and its images show them, bool `[n]`."""
    by_phrase = {sentences.noun_phrase(name): name for name in names}
    prompts = ["<text> <image> and <text> <image>"] * flags.documents
    documents = model.generate_batch(prompts, steps=steps, seed=flags.seed)
    rights = []
    for document in documents:
        texts = [part.strip() for part in document.parts if isinstance(part, str)]
        first, second = by_phrase.get(texts[0]), by_phrase.get(texts[1].removeprefix("and").strip())
        rights.append(None not in (first, second) and shows(document, (first, second), classifier))
    return np.array(rights)


def shows(document: of.Document, names: Sequence[str], classifier: NearestImage) -> bool:
    """Return whether the images of a document look like these names, in order."""
    return list(classifier([np.asarray(image) for image in document.images])) == list(names)


def summarize(right: np.ndarray) -> dict[str, object]:
    """Return the fraction with n and its 95 % bootstrap interval."""
    draws = bootstrap.resample(lambda chosen: float(right[chosen].mean()), len(right))
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"fraction": float(right.mean()), "interval": [low, high], "n": len(right)}


def measure_seconds() -> dict[str, float]:
    """Return seconds of loading and of two documents, in a first process and in a second one."""
    seconds = {}
    with tempfile.TemporaryDirectory() as cache:
        for process in ("first process", "second process"):
            done = subprocess.run(
                [sys.executable, "-c", TIMING],
                env={**os.environ, "XDG_CACHE_HOME": cache},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            measured = json.loads(done.stdout.splitlines()[-1])
            seconds |= {f"{process}: {name}": value for name, value in measured.items()}
    return seconds


if __name__ == "__main__":
    main()
