"""Metrics of the digits data set: is the caption valid, and does the image show its digit?

caption_validity        fraction of captions that are exactly one of the 40 captions
length_total_variation  total variation distance between the caption lengths (in words) of the
                        samples and those of the data; 0 is best
image_caption_match     fraction of valid captions whose image is classified as the caption's digit
caption_diversity       effective number of distinct captions, exp(entropy of the valid captions),
                        divided by 40; about 1 for the data, 1/40 if all captions are the same
"""

from collections.abc import Sequence

import numpy as np

from oneflow_jax.data import digits
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.evaluation import base

GALLERY_SIZE = 40
"""Maximum number of cells of the contact sheet."""


def make_suite(
    train: Sequence[Document], heldout: Sequence[Document], num_samples: int
) -> base.EvalSuite:
    """Make the suite: joint generation of captions and images, scored with a classifier.

    Args:
        train: documents that the classifier is trained on.
        heldout: documents whose images the classifier is tested on (`classifier_accuracy`).
        num_samples: number of documents to generate.
    """
    from sklearn import svm  # Importing sklearn takes 2 s.

    classifier = svm.SVC(gamma=0.02).fit(*_features_and_labels(train))
    accuracy = float(classifier.score(*_features_and_labels(heldout)))

    real = [len(train[i].text().split()) for i in range(len(train))]

    def score(generated: Sequence[Document]) -> base.MetricResult:
        named = [digits.parse_digit(document.text()) for document in generated]
        read = classifier.predict(np.stack([_features(document) for document in generated]))
        agrees = [name == digit for name, digit in zip(named, read, strict=True)]
        valid = [name is not None for name in named]
        lengths = [len(document.text().split()) for document in generated]
        figures = {
            "caption_validity": base.fraction(valid),
            "length_total_variation": base.total_variation(lengths, real),
        }
        if any(valid):
            figures["image_caption_match"] = base.fraction(
                [a for a, v in zip(agrees, valid, strict=True) if v]
            )
            captions = [document.text() for document, v in zip(generated, valid, strict=True) if v]
            figures["caption_diversity"] = base.diversity(captions, len(digits.CAPTIONS))
        cells = tuple(
            (document.images()[0], document.text(), "right" if agree else "wrong")
            for document, agree in zip(generated[:GALLERY_SIZE], agrees, strict=False)
        )
        return base.MetricResult(figures, cells)

    prompt = Document((Gap("text"), Gap("image")))
    task = base.EvalTask("joint", (prompt,) * num_samples, score)
    return base.EvalSuite((task,), lambda: {"classifier_accuracy": accuracy})


def _features_and_labels(documents: Sequence[Document]) -> tuple[np.ndarray, np.ndarray]:
    rows = [documents[i] for i in range(len(documents))]
    features = np.stack([_features(document) for document in rows])
    return features, np.array([digits.parse_digit(document.text()) for document in rows])


def _features(document: Document) -> np.ndarray:
    """Return the grey values of the image, 0 to 1, as a vector."""
    return document.images()[0].mean(axis=-1).reshape(-1) / 255
