"""Tests of distances, precision and recall of image sets, with features of EfficientNet-Lite0."""

import numpy as np
import pytest

from oneflow_jax.data import emoji
from oneflow_jax.evaluation import image_set_distance

pytestmark = pytest.mark.skipif(
    image_set_distance.is_missing(), reason="pip install -r requirements-metrics.txt"
)


@pytest.fixture(scope="module")
def images():
    concepts = emoji.Settings(concepts=20).load_concepts()
    return np.stack([concept.pixels for concept in concepts if not concept.held_out])


def add_noise(images, std):
    noise = np.random.default_rng(0).normal(0, std, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def test_duplicate_images_have_equal_features(images):
    twice = image_set_distance.features(np.concatenate([images[:3], images[:3]]))
    np.testing.assert_array_equal(twice[:3], twice[3:])
    np.testing.assert_allclose(twice[:3], image_set_distance.features(images[:3]), atol=1e-4)


def test_precision_and_recall_of_a_set_with_itself_are_one(images):
    score = image_set_distance.score(images, images)
    assert score.metrics == {"precision": 1.0, "recall": 1.0}
    assert score.unbounded["fd_efficientnet"] == pytest.approx(0, abs=1e-3)
    assert score.unbounded["kid_efficientnet"] < 0.01


def test_more_noise_increases_the_distance(images):
    scores = [
        image_set_distance.score(add_noise(images, deviation), images) for deviation in (0, 20, 80)
    ]
    for name in ("kid_efficientnet", "fd_efficientnet"):
        values = [score.unbounded[name] for score in scores]
        assert values == sorted(values)
        assert values[2] > values[1] + 0.01
    assert scores[2].metrics["precision"] < scores[0].metrics["precision"]


def test_bootstrap_values_surround_the_metrics(images):
    score = image_set_distance.score(add_noise(images, 40), images)
    draws = score.bootstrap(0)
    assert set(draws) == {*score.metrics, *score.unbounded}
    for name, value in score.unbounded.items():
        assert np.mean(draws[name]) == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert np.std(draws["fd_efficientnet"]) > 0
    for name, share in score.metrics.items():
        assert 0 <= np.min(draws[name]) <= share <= np.max(draws[name]) <= 1


def test_duplicates_do_not_change_precision(images):
    """Check that precision is the same for one noisy copy of each image and for four copies."""
    copies = np.concatenate([add_noise(images, 2)] * 4)
    score = image_set_distance.score(copies, np.concatenate([images] * 4))
    assert (
        score.metrics["precision"]
        == image_set_distance.score(copies[:20], images).metrics["precision"]
    )
    assert score.metrics["precision"] > 0.9
