"""Digits: is the caption one of the 40, and is the picture the digit that it names?

valid    share of captions that are one of the 40, word for word
lengths  distance of the captions' numbers of words from the data's: total variation, 0 is best
match    share of the valid ones whose picture a classifier reads as the caption's digit
variety  how many of the 40 captions there would be if all that come came equally often, by 40:
         exp(entropy of the valid captions) / 40; about 1 for the data, 1/40 for one caption alone
"""

from collections.abc import Sequence

import numpy as np
from sklearn import svm

from oneflow_jax.data import digits
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.evaluation import base

GALLERY_SIZE = 40
"""Cells of the contact sheet."""


def make_suite(
    train: Sequence[Document], heldout: Sequence[Document], num_samples: int
) -> base.EvalSuite:
    """Joint generation of `num_samples` captions and pictures, judged by a classifier.

    Args:
        train: digits that the classifier learns from.
        heldout: digits that it is tested on: `classifier_accuracy`.
        num_samples: how many documents to make.
    """
    classifier = svm.SVC(gamma=0.02).fit(*_features_and_labels(train))
    accuracy = float(classifier.score(*_features_and_labels(heldout)))

    real = [len(train[i].words().split()) for i in range(len(train))]

    def score(made: Sequence[Document]) -> base.MetricResult:
        named = [digits.parse_digit(document.words()) for document in made]
        read = classifier.predict(np.stack([_features(document) for document in made]))
        agrees = [name == digit for name, digit in zip(named, read, strict=True)]
        valid = [name is not None for name in named]
        lengths = [len(document.words().split()) for document in made]
        figures = {"valid": base.fraction(valid), "lengths": base.total_variation(lengths, real)}
        if any(valid):
            figures["match"] = base.fraction([a for a, v in zip(agrees, valid, strict=True) if v])
            captions = [document.words() for document, v in zip(made, valid, strict=True) if v]
            figures["variety"] = base.diversity(captions, len(digits.CAPTIONS))
        cells = tuple(
            (document.pictures()[0], document.words(), "right" if agree else "wrong")
            for document, agree in zip(made[:GALLERY_SIZE], agrees, strict=False)
        )
        return base.MetricResult(figures, cells)

    prompt = Document((Gap("text"), Gap("image")))
    return base.EvalSuite((base.EvalTask("joint", (prompt,) * num_samples, score),), {
        "classifier_accuracy": accuracy
    })  # fmt: skip


def _features_and_labels(documents: Sequence[Document]) -> tuple[np.ndarray, np.ndarray]:
    every = [documents[i] for i in range(len(documents))]
    features = np.stack([_features(document) for document in every])
    return features, np.array([digits.parse_digit(document.words()) for document in every])


def _features(document: Document) -> np.ndarray:
    """Grey values, 0 to 1."""
    return document.pictures()[0].mean(axis=-1).reshape(-1) / 255
