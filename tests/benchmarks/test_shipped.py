"""Tests of the scores of `benchmarks.shipped`."""

import argparse

import numpy as np
import PIL.Image
import pytest

import oneflow_jax as of
from benchmarks import shipped
from benchmarks.finetune import Picture
from oneflow_jax.evaluation.nearest_image import NearestImage

COLORS = {"ant": (255, 0, 0), "bee": (0, 255, 0), "cat": (0, 0, 255)}
FLAGS = argparse.Namespace(documents=8, seed=0)


def draw(name):
    return PIL.Image.new("RGB", (8, 8), COLORS[name])


@pytest.fixture
def classifier():
    return NearestImage.from_images([Picture(name, np.asarray(draw(name))) for name in COLORS])


class ModelOfNames:
    """A model whose images show the names in the text, or the next ones."""

    def __init__(self, *, texts=("an ant", "and a bee"), is_right=True):
        self.texts, self.is_right = texts, is_right

    def generate_batch(self, prompts, **options):
        return [self.answer(prompt) for prompt in prompts]

    def answer(self, prompt):
        text = " ".join(self.texts) if "<text>" in prompt else prompt
        found = sorted((text.index(name), name) for name in COLORS if name in text)
        images = [draw(name) for _, name in (found if self.is_right else found[::-1])]
        return of.Document([self.texts[0], images[0], self.texts[1], images[-1]])


@pytest.mark.parametrize("is_right", [True, False])
def test_two_subjects_must_both_be_shown_in_order(classifier, is_right):
    model = ModelOfNames(is_right=is_right)
    right = shipped.score_two_subjects(model, [*COLORS], classifier, 4, FLAGS)
    assert right.tolist() == [is_right] * 8


@pytest.mark.parametrize(
    ("texts", "is_right", "score"),
    [
        (("an ant", "and a bee"), True, True),
        (("an ant", "and a bee"), False, False),
        (("an ant", "and a a bee"), True, False),
        (("ant cat", "and a bee"), True, False),
    ],
)
def test_two_texts_must_be_names_that_the_images_show(classifier, texts, is_right, score):
    model = ModelOfNames(texts=texts, is_right=is_right)
    right = shipped.score_two_texts(model, [*COLORS], classifier, 4, FLAGS)
    assert right.tolist() == [score] * 8
