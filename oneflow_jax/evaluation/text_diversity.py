"""Are generated texts many different ones, and are they more than texts of training?

distinct  share of runs of n words that differ: Li et al., A Diversity-Promoting Objective Function
          for Neural Conversation Models (2016). It falls with the number of texts, whatever they
          are: compare only equally many
nearest   of each text the one of training that is most like it
copied    which texts stand in training to the letter

How like two texts are: 1 less their Levenshtein distance in words (put in, taken out or changed) by
the number of words of the longer one. 1 for the same words, 0 if none is in its place.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from oneflow_jax.errors import UserError


def distinct_n(texts: Sequence[str], n: int) -> float:
    """How many different runs of `n` words there are, by all; 0 if there is none.

    Raises:
        UserError: `n` below 1.
    """
    if n < 1:
        raise UserError(f"n={n}: runs have 1 word or more.")
    words = [text.split() for text in texts]
    runs = [tuple(one[i : i + n]) for one in words for i in range(len(one) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 0.0


def nearest_neighbors(texts: Sequence[str], training: Sequence[str]) -> list[tuple[float, str]]:
    """Of each text the most similar one of training, the first of several, and how like it is.

    256 texts and 5,000 different ones of ten words take some seconds.

    Raises:
        UserError: no texts of training.
    """
    known = list(dict.fromkeys(training))
    if not known:
        raise UserError("training=[]: give one text or more.")
    place: dict[str, int] = {}
    split = [[place.setdefault(word, len(place)) for word in text.split()] for text in known]
    lengths = np.array([len(words) for words in split])
    table = np.full((lengths.max(), len(known)), -1)
    for n, words in enumerate(split):
        table[: len(words), n] = words
    found = {}
    for text in dict.fromkeys(texts):
        words = [place.get(word, -1) for word in text.split()]
        longer = np.maximum(np.maximum(lengths, len(words)), 1)
        alike = 1 - _levenshtein_distances(words, table, lengths) / longer
        found[text] = float(alike.max()), known[alike.argmax()]
    return [found[text] for text in texts]


def exact_matches(texts: Sequence[str], training: Sequence[str]) -> list[bool]:
    """Which of `texts` are in `training` to the letter."""
    known = set(training)
    return [text in known for text in texts]


def _levenshtein_distances(
    word_ids: Sequence[int], table: Int[np.ndarray, "w m"], lengths: Int[np.ndarray, "m"]
) -> Int[np.ndarray, "m"]:
    """Levenshtein distances of one text and each column of the table, all at once.

    Words are numbers, and -1 what no text of training has. Row j of `far` holds the distances of
    the words so far and the first j of each column.
    """
    far = np.repeat(np.arange(len(table) + 1)[:, None], table.shape[1], axis=1)
    for word in word_ids:
        changed = far[:-1] + (table != word)
        kept = far[0] + 1
        far = np.concatenate([kept[None], np.minimum(changed, far[1:] + 1)])
        for j in range(1, len(far)):
            np.minimum(far[j], far[j - 1] + 1, out=far[j])
    return far[lengths, np.arange(table.shape[1])]
