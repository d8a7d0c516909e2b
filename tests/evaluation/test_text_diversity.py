import random
import time

import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import text_diversity


def test_distinct():
    assert text_diversity.distinct_n(["a b c", "d e f"], 1) == 1
    assert text_diversity.distinct_n(["a b a b"], 1) == 0.5
    assert text_diversity.distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)
    # No n-gram spans two texts. An n-gram that occurs in two texts counts once.
    assert text_diversity.distinct_n(["a b", "b c", "a b"], 2) == pytest.approx(2 / 3)
    assert text_diversity.distinct_n(["a", "b"], 2) == text_diversity.distinct_n([], 1) == 0
    with pytest.raises(UserError, match="n=0"):
        text_diversity.distinct_n(["a"], 0)


def edit_distance(x, y):
    """Return the Levenshtein distance of two texts in words, by its recursive definition."""
    if not x or not y:
        return len(x) + len(y)
    return min(
        edit_distance(x[1:], y[1:]) + (x[0] != y[0]),
        edit_distance(x[1:], y) + 1,
        edit_distance(x, y[1:]) + 1,
    )


def test_similarity_is_word_level_edit_distance():
    training = ["first a fox , then an owl", "two animals: a fox and a cat", "a fox"]
    assert text_diversity.nearest_neighbors(["a fox"], training) == [(1.0, "a fox")]
    assert text_diversity.nearest_neighbors(["first a fox , then an eel"], training) == [
        (pytest.approx(1 - 1 / 7), training[0])
    ]
    assert text_diversity.nearest_neighbors(["two animals: a fox and a big cat"], training) == [
        (pytest.approx(1 - 1 / 8), training[1])
    ]
    assert text_diversity.nearest_neighbors(["fox"], training) == [(0.5, "a fox")]
    assert text_diversity.nearest_neighbors(["zzz"], training)[0][0] == 0
    assert text_diversity.nearest_neighbors([""], training)[0][0] == 0
    assert text_diversity.nearest_neighbors(["", "a"], ["", "a"]) == [(1.0, ""), (1.0, "a")]
    assert text_diversity.nearest_neighbors(["a b"], ["a c", "c b"]) == [(0.5, "a c")]
    with pytest.raises(UserError, match="training"):
        text_diversity.nearest_neighbors(["a"], [])


def test_nearest_neighbors_match_their_definition():
    rng = random.Random(0)

    def text():
        return [rng.choice("abcd") for _ in range(rng.randint(1, 6))]

    training = [text() for _ in range(20)]
    generated = [text() for _ in range(20)] + [["x", "a", "y"]]
    nearest = text_diversity.nearest_neighbors(
        list(map(" ".join, generated)), list(map(" ".join, training))
    )
    for one, (alike, which) in zip(generated, nearest, strict=True):
        likeness = [1 - edit_distance(one, t) / max(len(one), len(t)) for t in training]
        assert alike == pytest.approx(max(likeness))
        assert which == " ".join(training[likeness.index(max(likeness))])


def test_nearest_is_fast_enough():
    rng = random.Random(0)
    words = [f"w{n}" for n in range(200)]
    training = [" ".join(rng.choices(words, k=12)) for _ in range(5000)]
    start = time.process_time()
    nearest = text_diversity.nearest_neighbors(training[:32] * 8, training)
    assert time.process_time() - start < 10
    assert [text for _, text in nearest] == training[:32] * 8


def test_exact_matches():
    generated = ["a fox", "a  fox", "an owl", "a fox"]
    assert text_diversity.exact_matches(generated, ["a fox", "a cat"]) == [True, False, False, True]
    assert text_diversity.exact_matches([], ["a"]) == []
