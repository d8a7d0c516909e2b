import numpy as np
import pytest

from oneflow_jax.evaluation import contrastive


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def pairs():
    """Return 4 noisy vectors of each of 12 objects, and a bag of words of each object."""
    centers = rng(0).standard_normal((12, 1, 20))
    images = (centers + 0.2 * rng(1).standard_normal((12, 4, 20))).astype(np.float32)
    # Each bag has 2 of 7 words, and no two bags are equal.
    bags = np.zeros((12, 7), np.float32)
    twos = [(i, j) for i in range(7) for j in range(i)][:12]
    for n, two in enumerate(twos):
        bags[n, list(two)] = 0.5
    return images, bags


@pytest.fixture(scope="module")
def params(pairs):
    return contrastive.train(*pairs, rng(), steps=150)


def retrieval_accuracy(params, features, bags):
    near = contrastive.encode_image(params, features) @ contrastive.encode_text(params, bags).T
    return np.mean(np.asarray(near).argmax(axis=1) == np.arange(len(features)))


def test_training_matches_images_to_phrases(pairs, params):
    images, bags = pairs
    fresh = images.mean(axis=1) + 0.2 * rng(2).standard_normal((12, 20)).astype(np.float32)
    assert retrieval_accuracy(params, fresh, bags) == 1
    crossed = contrastive.train(images, bags[::-1], rng(), steps=150)
    assert retrieval_accuracy(crossed, fresh, bags) == 0
    assert retrieval_accuracy(crossed, fresh, bags[::-1]) == 1
    assert retrieval_accuracy(params, fresh[::-1], bags) < 0.5


def test_vectors_have_length_1(pairs, params):
    images, bags = pairs
    for vectors in (
        contrastive.encode_image(params, images[:, 0]),
        contrastive.encode_text(params, bags),
    ):
        assert vectors.shape == (12, contrastive.EMBED_DIM)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-4)


def test_loss_matches_its_definition(pairs, params):
    images, bags = pairs
    few_images = images[:5, 0]
    near = (
        contrastive.encode_image(params, few_images) @ contrastive.encode_text(params, bags[:5]).T
    )
    logits = np.asarray(near, np.float64) * np.exp(float(params["sharpness"]))
    rows = np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)
    columns = np.log(np.exp(logits).sum(axis=0)) - np.diag(logits)
    expected = (rows.mean() + columns.mean()) / 2
    assert contrastive.loss(params, few_images, bags[:5]) == pytest.approx(expected, rel=1e-3)


def test_loss_of_five_equal_pairs_is_log_five(pairs, params):
    images, bags = (np.repeat(one[:1], 5, axis=0) for one in (pairs[0][:, 0], pairs[1]))
    assert contrastive.loss(params, images, bags) == pytest.approx(np.log(5), rel=1e-4)


def test_temperature_is_learned_and_bounded(pairs, params):
    # The phrases of the two images are swapped, so the loss rises with the inverse temperature.
    images, bags = pairs[0][:2, 0], pairs[1][1::-1]
    assert abs(float(params["sharpness"]) - np.log(1 / 0.07)) > 1e-3
    values = [
        float(contrastive.loss(dict(params, sharpness=np.log(sharp)), images, bags))
        for sharp in (50.0, 100.0, 1000.0)
    ]
    assert values[0] != values[1] == values[2]


def test_features_are_normalized(pairs, params):
    images, bags = pairs
    np.testing.assert_allclose(params["mean"], images.mean(axis=(0, 1)))
    scale = np.geomspace(0.01, 100, 20).astype(np.float32)
    scaled = contrastive.train(images * scale, bags, rng(), steps=150)
    assert retrieval_accuracy(scaled, images[:, 0] * scale, bags) == 1


def test_the_seed_determines_the_result(pairs):
    first, again, other_seed = (
        contrastive.train(*pairs, rng(seed), steps=5)["words"] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other_seed)
