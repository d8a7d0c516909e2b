"""Documents made from nothing: `interleaved`, and whether their words are many and new.

shown ... interleaved  as in `interleaved`
distinct_1, distinct_2 share of single words, and of pairs, that differ: `texts`
copied                 share of documents whose words stand in training to the letter
nearest                how like the words are to their nearest of training, 0 to 1, the mean; of the
                       first `MAX_TRAIN_TEXTS` documents of training, for it takes its time
"""

import functools
from collections.abc import Sequence

import numpy as np

from oneflow_jax.data import emoji_concepts
from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import base, interleaved, text_diversity

MAX_TRAIN_TEXTS = 5_000
"""Documents of training among which the nearest words are looked for."""


def score(
    concepts: Sequence[emoji_concepts.Concept],
    real: Sequence[Document],
    train_texts: Sequence[str],
    classifier: interleaved.ImageClassifier,
    generated: Sequence[Document],
) -> base.MetricResult:
    """All figures.

    Args:
        concepts: that can be named or shown.
        real: documents of training, at least as many as made.
        train_texts: words of documents of training.
        classifier: what pictures show.
        generated: the documents.
    """
    own = interleaved.score_documents(generated, concepts, classifier)
    theirs = interleaved.score_documents(real, concepts, classifier)
    words = [document.words() for document in generated]
    figures = interleaved.compute_metrics(own, theirs)
    some = train_texts[:MAX_TRAIN_TEXTS]
    more = {
        "distinct_1": text_diversity.distinct_n(words, 1),
        "distinct_2": text_diversity.distinct_n(words, 2),
        "nearest": float(
            np.mean([like for like, _ in text_diversity.nearest_neighbors(words, some)])
        ),
    }
    return base.merge(
        base.MetricResult(
            figures | more, spread=functools.partial(interleaved.bootstrap_metrics, own, theirs)
        ),
        base.score_fractions({"copied": text_diversity.exact_matches(words, train_texts)}),
    )
