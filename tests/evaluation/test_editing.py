"""Revision is scored by what is right at the end, and what was harmed on the way."""

import random

import numpy as np
import pytest

from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.evaluation import editing

IMAGES = {name: np.full((2, 2, 3), shade, np.uint8) for shade, name in enumerate("xyz")}
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def classify(pixels):
    return "xyz"[int(pixels[0, 0, 0])]


def make_reference():
    return Document((Text(" ".join(WORDS[:6])), Image(IMAGES["x"]), Text(" ".join(WORDS[6:]))))


def corrupt(seed):
    return editing.inject_errors(
        make_reference(), random.Random(seed), [*WORDS, "zero"], IMAGES, classify
    )


def compute_metrics(generated, seeds):
    return editing.score([corrupt(seed) for seed in seeds], classify, generated).figures


SEEDS = range(40)


def test_a_fifth_of_the_words_and_one_picture_are_wrong():
    whole = (*WORDS[:6], "<x>", *WORDS[6:])
    for seed in SEEDS:
        one = corrupt(seed)
        assert one.right == whole
        words = {n for n in one.mistaken if n != 6}
        assert 6 in one.mistaken
        assert classify(one.document.pictures()[0]) != "x"
        assert 1 <= len(words) <= 4  # Two mistakes; one that swaps concerns two words.
        assert one.extra <= words
    assert len({one.document.words() for one in map(corrupt, SEEDS)}) > 30


def test_all_put_right_is_all_right():
    assert compute_metrics([make_reference()] * 40, SEEDS) == pytest.approx({
        "revise_words": 1, "revise_pictures": 1, "revise_harm": 0, "revise_document": 1,
        "revise_untouched": compute_metrics([make_reference()] * 40, SEEDS)["revise_untouched"],
    })  # fmt: skip


def test_nothing_done_puts_nothing_right_and_harms_nothing():
    left = compute_metrics([corrupt(seed).document for seed in SEEDS], SEEDS)
    assert left["revise_words"] < 0.05  # A word too many may hide behind another mistake.
    assert left["revise_pictures"] == 0
    assert left["revise_harm"] < 0.05  # What stands between two that were swapped may be either.
    assert left["revise_document"] == 0
    assert 0.7 < left["revise_untouched"] < 0.95


def test_all_made_anew_harms_all():
    other = Document((Text("something else"), Image(IMAGES["z"])))
    found = compute_metrics([other] * 40, SEEDS)
    assert found["revise_harm"] == 1
    assert found["revise_words"] == 0
    assert found["revise_document"] == 0


def test_a_word_too_many_must_go():
    seed = next(seed for seed in SEEDS if corrupt(seed).extra)
    one = corrupt(seed)
    (n, *_) = one.extra
    words = [item for item in one.right if item != "<x>"]
    at = words.index(one.right[n]) + 1
    kept = " ".join([*words[:at], "zero", *words[at:]]).split()
    first = 6 + (at <= 6)
    surplus = Document(
        (Text(" ".join(kept[:first])), Image(IMAGES["x"]), Text(" ".join(kept[first:])))
    )
    assert compute_metrics([make_reference()], [seed])["revise_words"] == 1
    assert compute_metrics([surplus], [seed])["revise_words"] < 1
    assert compute_metrics([surplus], [seed])["revise_document"] == 0
