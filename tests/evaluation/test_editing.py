"""Tests of the edit metrics: errors that editing corrects, and right items that it damages."""

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
    return editing.score([corrupt(seed) for seed in seeds], classify, generated).metrics


SEEDS = range(40)


def test_a_fifth_of_the_words_and_one_image_are_corrupted():
    whole = (*WORDS[:6], "<x>", *WORDS[6:])
    for seed in SEEDS:
        one = corrupt(seed)
        assert one.reference == whole
        words = {n for n in one.corrupted_indices if n != 6}
        assert 6 in one.corrupted_indices
        assert classify(one.document.images()[0]) != "x"
        assert 1 <= len(words) <= 4  # There are two errors; a swap affects two words.
        assert one.spurious_after <= words
    assert len({one.document.text() for one in map(corrupt, SEEDS)}) > 30


def test_corrected_documents_score_one():
    assert compute_metrics([make_reference()] * 40, SEEDS) == pytest.approx({
        "edit_text_recall": 1, "edit_image_recall": 1, "over_edit_rate": 0, "edit_exact_match": 1,
        "unedited_baseline": compute_metrics([make_reference()] * 40, SEEDS)["unedited_baseline"],
    })  # fmt: skip


def test_unedited_documents_have_zero_recall_and_zero_over_edit_rate():
    left = compute_metrics([corrupt(seed).document for seed in SEEDS], SEEDS)
    assert left["edit_text_recall"] < 0.05  # Beside other errors, a spurious word may go unnoticed.
    assert left["edit_image_recall"] == 0
    assert left["over_edit_rate"] < 0.05  # For two swapped words, two alignments are possible.
    assert left["edit_exact_match"] == 0
    assert 0.7 < left["unedited_baseline"] < 0.95


def test_unrelated_documents_have_over_edit_rate_one():
    unrelated = Document((Text("something else"), Image(IMAGES["z"])))
    metric_values = compute_metrics([unrelated] * 40, SEEDS)
    assert metric_values["over_edit_rate"] == 1
    assert metric_values["edit_text_recall"] == 0
    assert metric_values["edit_exact_match"] == 0


def test_spurious_word_must_be_deleted():
    seed = next(seed for seed in SEEDS if corrupt(seed).spurious_after)
    one = corrupt(seed)
    (n, *_) = one.spurious_after
    words = [item for item in one.reference if item != "<x>"]
    at = words.index(one.reference[n]) + 1
    words_after = " ".join([*words[:at], "zero", *words[at:]]).split()
    first = 6 + (at <= 6)
    surplus = Document(
        (
            Text(" ".join(words_after[:first])),
            Image(IMAGES["x"]),
            Text(" ".join(words_after[first:])),
        )
    )
    assert compute_metrics([make_reference()], [seed])["edit_text_recall"] == 1
    assert compute_metrics([surplus], [seed])["edit_text_recall"] < 1
    assert compute_metrics([surplus], [seed])["edit_exact_match"] == 0
