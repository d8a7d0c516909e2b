"""Measures the shipped model where `--mode=evaluate` does not: documents of two subjects, seconds.

    python -m benchmarks.shipped

In the first task, the text names two random subjects, and the model draws both. In the second task,
the model also writes both texts. `Judge` says when a document is right. In the third task, the text
says how many images follow, such as "three animals:", and the model chooses the layout. The seconds
are those of two new processes: the first one compiles, and the second one loads the compiled
programs.
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
from oneflow_jax.api.document import to_internal
from oneflow_jax.data import emoji, emoji_concepts, labels, sentences
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


class Judge:
    """Function from documents to whether each is right, bool `[n]`.

    A document is right if its text is exactly one of the data set, with different names and a
    category that fits, and its images look like the names. An image looks like the nearest of the
    training images.

    Attributes:
        names: the names.
        kinds: singular noun of each name, such as "animal".
    """

    def __init__(self, concepts: Sequence[emoji_concepts.Concept]) -> None:
        """Create the judge from the names and images of the training data."""
        self.kinds = labels.list_kinds(concepts)
        self._classifier = NearestImage.from_images(concepts)
        self.names = [one.label for one in concepts]

    def __call__(self, documents: Sequence[of.Document]) -> np.ndarray:
        """Judge the documents, whose images have one size."""
        return np.array([self._is_right(document) for document in documents])

    def _is_right(self, document: of.Document) -> bool:
        images = [np.asarray(image) for image in document.images]
        named = sentences.expected_names(to_internal(document, len(images[0])), self.kinds)
        return named == tuple(self._classifier(images))


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
    judge = Judge(load_concepts(model))
    chosen = score_stated_number(model, judge, flags)
    results["stated number of images"] = summarize(chosen)
    print(json.dumps({"stated number of images": summarize(chosen)}), flush=True)
    for steps in flags.steps:
        tasks = {
            "two subjects": score_two_subjects(model, judge, steps, flags),
            "two texts and images": score_two_texts(model, judge, steps, flags),
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
    model: of.Model, judge: Judge, steps: int, flags: argparse.Namespace
) -> np.ndarray:
    """Return for each document whether both images look like the given names, bool `[n]`."""
    rng = np.random.default_rng(flags.seed)
    pairs = [rng.choice(judge.names, 2, replace=False) for _ in range(flags.documents)]
    prompts = [
        "first {} <image>, then {} <image>".format(*map(sentences.noun_phrase, pair))
        for pair in pairs
    ]
    return judge(model.generate_batch(prompts, steps=steps, seed=flags.seed))


def score_two_texts(
    model: of.Model, judge: Judge, steps: int, flags: argparse.Namespace
) -> np.ndarray:
    """Return for each document whether its text is right and its images show it, bool `[n]`."""
    prompts = ["<text> <image> and <text> <image>"] * flags.documents
    return judge(model.generate_batch(prompts, steps=steps, seed=flags.seed))


def score_stated_number(model: of.Model, judge: Judge, flags: argparse.Namespace) -> np.ndarray:
    """Return for each document whether it has as many images as its text says, bool `[n]`."""
    rng = np.random.default_rng(flags.seed)
    words = rng.choice(sentences.NUMBER_WORDS, flags.documents)
    kinds = rng.choice(sorted(set(judge.kinds.values())), flags.documents)
    prompts = [f"{word} {kind}s: <document>" for word, kind in zip(words, kinds, strict=True)]
    documents = model.generate_batch(prompts, steps=1, seed=flags.seed)
    return np.array(
        [
            len(document.images) == 2 + sentences.NUMBER_WORDS.index(word)
            for document, word in zip(documents, words, strict=True)
        ]
    )


def summarize(right: np.ndarray) -> dict[str, object]:
    """Return the fraction with n and its 95 % bootstrap interval."""
    fraction, *interval = report.mean_interval(right)
    return {"fraction": fraction, "interval": interval, "n": len(right)}


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
