"""Metrics of documents generated without a prompt: consistency, text diversity and copying.

interleaved_score         and its components: metrics of `evaluation.interleaved`
distinct_1, distinct_2    fraction of distinct words and word pairs: `text_diversity.distinct_n`
train_copy_rate           fraction of documents whose text equals the text of a training document
nearest_train_similarity  mean similarity of each text to its nearest training text, 0 to 1; to save
                          time, only the first `MAX_TRAIN_TEXTS` training texts are searched
"""

import functools
from collections.abc import Sequence

import numpy as np

from oneflow_jax.data import labels
from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import base, interleaved, text_diversity

MAX_TRAIN_TEXTS = 5_000
"""Maximum number of training texts among which the nearest text is searched."""


def score(
    known: Sequence[labels.LabeledImage],
    real: Sequence[Document],
    train_texts: Sequence[str],
    classifier: interleaved.ImageClassifier,
    generated: Sequence[Document],
) -> base.MetricResult:
    """Compute all metrics of documents that were generated without a prompt.

    Args:
        known: images that documents can name or show.
        real: training documents to compare with; at least as many as `generated`.
        train_texts: texts of training documents.
        classifier: function that labels what images show.
        generated: generated documents.
    """
    own = interleaved.score_documents(generated, known, classifier)
    theirs = interleaved.score_documents(real, known, classifier)
    words = [document.text() for document in generated]
    figures = interleaved.compute_metrics(own, theirs)
    searched_texts = train_texts[:MAX_TRAIN_TEXTS]
    more = {
        "distinct_1": text_diversity.distinct_n(words, 1),
        "distinct_2": text_diversity.distinct_n(words, 2),
        "nearest_train_similarity": float(
            np.mean([like for like, _ in text_diversity.nearest_neighbors(words, searched_texts)])
        ),
    }
    return base.merge(
        base.MetricResult(
            figures | more, bootstrap=functools.partial(interleaved.bootstrap_metrics, own, theirs)
        ),
        base.score_fractions({"train_copy_rate": text_diversity.exact_matches(words, train_texts)}),
    )
