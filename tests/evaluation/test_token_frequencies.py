"""Tests of the baseline that knows only the frequencies of tokens."""

import math

import pytest

from oneflow_jax.evaluation.token_frequencies import TokenFrequencies


def test_probabilities_add_up_to_one():
    counted = TokenFrequencies.count([[5, 6], [5, 7, 8], [5]])
    known = sorted(counted.everywhere)
    for place in range(4):
        unknown = counted.probability(place, 99)
        assert sum(counted.probability(place, n) for n in known) + unknown == pytest.approx(1)
    assert counted.probability(0, 5) > 0.6 > counted.probability(1, 5)


def test_most_frequent_tokens_of_each_place():
    counted = TokenFrequencies.count([[5, 6], [5, 7], [4, 7, 8]])
    assert counted.most_frequent(5) == [5, 7, 8]
    assert counted.most_frequent(1) == [5]


def test_cross_entropy_is_the_mean_of_the_negative_log_probabilities():
    counted = TokenFrequencies.count([[5, 6]] * 100)
    assert counted.cross_entropy([[5, 6], [5]]) == pytest.approx(0, abs=0.1)
    probabilities = counted.probability(0, 6), counted.probability(1, 9)
    expected = -sum(map(math.log, probabilities)) / 2
    assert counted.cross_entropy([[6, 9]]) == pytest.approx(expected)
    assert counted.cross_entropy([]) == 0
