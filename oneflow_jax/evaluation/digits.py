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

SHOWN = 40
"""Cells of the contact sheet."""


def suite(train: Sequence[Document], heldout: Sequence[Document], samples: int) -> base.Suite:
    """Joint generation of `samples` captions and pictures, judged by a classifier.

    Args:
        train: digits that the classifier learns from.
        heldout: digits that it is tested on: `classifier_accuracy`.
        samples: how many documents to make.
    """
    classifier = svm.SVC(gamma=0.02).fit(*_labelled(train))
    accuracy = float(classifier.score(*_labelled(heldout)))

    real = [len(train[i].words().split()) for i in range(len(train))]

    def score(made: Sequence[Document]) -> base.Score:
        named = [digits.digit_in(document.words()) for document in made]
        read = classifier.predict(np.stack([_features(document) for document in made]))
        agrees = [name == digit for name, digit in zip(named, read, strict=True)]
        valid = [name is not None for name in named]
        lengths = [len(document.words().split()) for document in made]
        figures = {"valid": base.share(valid), "lengths": base.distance(lengths, real)}
        if any(valid):
            figures["match"] = base.share([a for a, v in zip(agrees, valid, strict=True) if v])
            captions = [document.words() for document, v in zip(made, valid, strict=True) if v]
            figures["variety"] = base.variety(captions, len(digits.CAPTIONS))
        cells = tuple(
            (document.pictures()[0], document.words(), "right" if agree else "wrong")
            for document, agree in zip(made[:SHOWN], agrees, strict=False)
        )
        return base.Score(figures, cells)

    prompt = Document((Gap("text"), Gap("image")))
    return base.Suite((base.Task("joint", (prompt,) * samples, score),), {
        "classifier_accuracy": accuracy
    })  # fmt: skip


def _labelled(documents: Sequence[Document]) -> tuple[np.ndarray, np.ndarray]:
    every = [documents[i] for i in range(len(documents))]
    features = np.stack([_features(document) for document in every])
    return features, np.array([digits.digit_in(document.words()) for document in every])


def _features(document: Document) -> np.ndarray:
    """Grey values, 0 to 1."""
    return document.pictures()[0].mean(axis=-1).reshape(-1) / 255
