"""Tests of whether documents with similar captions have similar images."""

import numpy as np

from oneflow_jax.evaluation import caption_match

COLORS = ("red", "green", "blue", "black")


def make_data(count=40):
    """Return captions that name a color and an object, and features that depend on the color."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(len(COLORS), size=count)
    captions = [f"A {COLORS[n]} thing{index % 9}." for index, n in enumerate(numbers)]
    return captions, np.eye(4)[numbers] + 0.3 * rng.normal(size=(count, 4))


def test_captions_that_name_colors_match():
    captions, features = make_data()
    match = caption_match.measure(captions, features)
    assert match.value > 0.65
    assert 0.5 < match.chance < 0.7


def test_shuffled_captions_do_not_match():
    captions, features = make_data()
    match = caption_match.measure(captions, np.roll(features, 7, axis=0))
    assert abs(match.value - 0.5) < 0.15
    assert match.value <= match.chance


def test_captions_without_common_words_have_no_result():
    _, features = make_data()
    assert caption_match.measure([f"word{n}" for n in range(40)], features) is None


def test_copies_of_one_image_count_half():
    captions, _ = make_data()
    assert caption_match.measure(captions, np.zeros((40, 4))).value == 0.5
