"""Tests of the metrics of documents that were generated without a prompt."""

import functools

import numpy as np
import pytest

from oneflow_jax.data import emoji as data
from oneflow_jax.data import sentences
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.evaluation import from_scratch
from oneflow_jax.evaluation.nearest_image import NearestImage


@pytest.fixture(scope="module")
def concepts():
    return [one for one in data.Settings(concepts=16).load_concepts() if not one.held_out]


@pytest.fixture(scope="module")
def score(concepts):
    real = [make_document(one) for one in concepts]
    classify = NearestImage.from_images(concepts)
    training = [document.text() for document in real]
    return functools.partial(from_scratch.score, concepts, real, training, classify)


def make_document(concept, pixels=None):
    words = Text(f"here is {sentences.noun_phrase(concept.name)}:")
    return Document((words, Image(concept.pixels if pixels is None else pixels)))


def test_training_documents_are_valid_and_copied(score, concepts):
    figures = score([make_document(one) for one in concepts]).metrics
    assert figures["image_name_alignment"] == figures["template_validity"] == 1.0
    assert figures["train_copy_rate"] == figures["nearest_train_similarity"] == 1.0


def test_new_texts_are_not_copied_but_have_a_nearest_neighbor(score, concepts):
    documents = [
        Document((Image(one.pixels), Text(f"here is the {one.name}:"))) for one in concepts
    ]
    figures = score(documents).metrics
    assert figures["train_copy_rate"] == 0.0
    assert 0 < figures["nearest_train_similarity"] < 1
    assert figures["template_validity"] == 0.0


def test_repeated_document_has_low_distinct_n(score, concepts):
    varied = score([make_document(one) for one in concepts]).metrics
    same = score([make_document(concepts[0])] * len(concepts)).metrics
    for figure in ("distinct_1", "distinct_2", "diversity"):
        assert same[figure] < varied[figure], figure


def test_document_metrics_have_bootstrap_values(score, concepts):
    documents = [make_document(one, concepts[0].pixels) for one in concepts]
    metric_values = score(documents)
    draws = metric_values.bootstrap(0)
    assert np.mean(draws["image_name_alignment"]) == pytest.approx(1 / len(concepts), abs=0.02)
    assert np.std(draws["image_name_alignment"]) > 0.01
    assert np.mean(draws["train_copy_rate"]) == 1.0
    assert "nearest_train_similarity" not in draws
