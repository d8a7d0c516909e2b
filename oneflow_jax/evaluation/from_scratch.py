"""Documents made from nothing: `interleaved`, and whether their words are many and new.

shown ... interleaved  as in `interleaved`
distinct_1, distinct_2 share of single words, and of pairs, that differ: `texts`
copied                 share of documents whose words stand in training to the letter
nearest                how like the words are to their nearest of training, 0 to 1, the mean; of the
                       first `COMPARED` documents of training, for it takes its time
"""

import functools
from collections.abc import Sequence

import numpy as np

from oneflow_jax.data import emoji_concepts
from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import base, interleaved, text_diversity

COMPARED = 5_000
"""Documents of training among which the nearest words are looked for."""


def score(
    concepts: Sequence[emoji_concepts.Concept],
    real: Sequence[Document],
    training: Sequence[str],
    look: interleaved.Look,
    made: Sequence[Document],
) -> base.Score:
    """All figures.

    Args:
        concepts: that can be named or shown.
        real: documents of training, at least as many as made.
        training: words of documents of training.
        look: what pictures show.
        made: the documents.
    """
    own = interleaved.marks(made, concepts, look)
    theirs = interleaved.marks(real, concepts, look)
    words = [document.words() for document in made]
    figures = interleaved.figures(own, theirs)
    some = training[:COMPARED]
    more = {
        "distinct_1": text_diversity.distinct(words, 1),
        "distinct_2": text_diversity.distinct(words, 2),
        "nearest": float(np.mean([like for like, _ in text_diversity.nearest(words, some)])),
    }
    return base.together(
        base.Score(figures | more, spread=functools.partial(interleaved.spread, own, theirs)),
        base.shares({"copied": text_diversity.copied(words, training)}),
    )
