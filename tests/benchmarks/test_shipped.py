"""Tests of the scores of `benchmarks.shipped`."""

import argparse

import numpy as np
import PIL.Image
import pytest

import oneflow_jax as of
from benchmarks import shipped
from oneflow_jax.data import emoji_concepts

COLORS = {"ant": (255, 0, 0), "bee": (0, 255, 0), "cat": (0, 0, 255)}
FLAGS = argparse.Namespace(documents=8, seed=0)


def draw(name):
    return PIL.Image.new("RGB", (8, 8), COLORS[name])


@pytest.fixture
def judge():
    return shipped.Judge(
        [
            emoji_concepts.Concept(
                name, "Animals & Nature", "animal", False, np.asarray(draw(name))
            )
            for name in COLORS
        ]
    )


class ModelOfNames:
    """A model whose images show the names in the text, in this order or in the other one."""

    def __init__(self, first="an ant", second="and a bee", *, in_order=True):
        self.texts, self.in_order = (first, second), in_order

    def generate_batch(self, prompts, **options):
        return [self.answer(prompt) for prompt in prompts]

    def answer(self, prompt):
        texts = self.texts if "<text>" in prompt else prompt.split("<image>")[:2]
        text = " ".join(texts)
        names = sorted((name for name in COLORS if name in text), key=text.index)
        images = [draw(name) for name in (names if self.in_order else names[::-1])]
        return of.Document([texts[0].strip(), images[0], texts[1].strip(), images[-1]])


@pytest.mark.parametrize("in_order", [True, False])
def test_two_subjects_must_both_be_shown_in_order(judge, in_order):
    model = ModelOfNames(in_order=in_order)
    assert shipped.score_two_subjects(model, judge, 4, FLAGS).tolist() == [in_order] * 8


@pytest.mark.parametrize(
    ("first", "second", "in_order", "right"),
    [
        ("an ant", "and a bee", True, True),
        ("an ant", "and a bee", False, False),
        ("two animals: an ant", "and a bee", True, True),
        ("two foods: an ant", "and a bee", True, False),
        ("an ant", "and a a bee", True, False),
        ("ant cat", "and a bee", True, False),
    ],
)
def test_two_texts_must_be_right_and_shown(judge, first, second, in_order, right):
    model = ModelOfNames(first, second, in_order=in_order)
    assert shipped.score_two_texts(model, judge, 4, FLAGS).tolist() == [right] * 8


class ModelOfCounts:
    """A model that generates two images after every text."""

    def generate_batch(self, prompts, **options):
        return [of.Document([prompt.split("<")[0], draw("ant"), draw("bee")]) for prompt in prompts]


def test_the_number_of_images_must_be_the_stated_one(judge):
    right = shipped.score_stated_number(ModelOfCounts(), judge, FLAGS)
    rng = np.random.default_rng(FLAGS.seed)
    stated = rng.choice(["two", "three", "four"], FLAGS.documents)
    assert right.tolist() == (stated == "two").tolist()
    assert 0 < right.sum() < len(right)


def test_a_document_without_texts_is_wrong(judge):
    assert judge([of.Document([draw("ant"), draw("bee")])]).tolist() == [False]
