"""A baseline for text: the frequencies of the tokens at each place of training texts.

The model knows neither images nor earlier tokens. A place with few observations borrows the
frequencies of all places together:

    p(token at place) = (count at place + SMOOTHING p(token)) / (observations of place + SMOOTHING)
    p(token) = (count + 1) / (number of tokens + number of distinct tokens + 1)

A token that does not occur in training has the probability of a count of 0.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

SMOOTHING = 4.0
"""Number of observations of a place at which its own frequencies have half of the weight."""


@dataclasses.dataclass(frozen=True)
class TokenFrequencies:
    """Counts of tokens in training texts.

    Attributes:
        places: counts of the tokens at each place.
        everywhere: counts of the tokens at all places together.
    """

    places: tuple[collections.Counter[int], ...]
    everywhere: collections.Counter[int]

    @classmethod
    def count(cls, texts: Sequence[Sequence[int]]) -> "TokenFrequencies":
        """Count the tokens of texts."""
        places: list[collections.Counter[int]] = []
        for text in texts:
            for place, token in enumerate(text):
                if place == len(places):
                    places.append(collections.Counter())
                places[place][int(token)] += 1
        return cls(tuple(places), sum(places, collections.Counter()))

    def most_frequent(self, length: int) -> list[int]:
        """Return the most frequent token of each place, for up to `length` places."""
        return [place.most_common(1)[0][0] for place in self.places[:length]]

    def probability(self, place: int, token: int) -> float:
        """Return the probability of a token at a place, from 0."""
        total, distinct = self.everywhere.total(), len(self.everywhere)
        prior = (self.everywhere[token] + 1) / (total + distinct + 1)
        at_place = self.places[place] if place < len(self.places) else collections.Counter()
        return (at_place[token] + SMOOTHING * prior) / (at_place.total() + SMOOTHING)

    def cross_entropy(self, texts: Sequence[Sequence[int]]) -> float:
        """Return the mean of -log p over all tokens of the texts, in nats; 0 without tokens."""
        losses = [
            -np.log(self.probability(place, int(token)))
            for text in texts
            for place, token in enumerate(text)
        ]
        return float(np.mean(losses)) if losses else 0.0
