import itertools

import numpy as np
import pytest
from scipy import linalg, ndimage

from oneflow_jax.data import emoji_concepts
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import fid_kid
from oneflow_jax.pretrained import efficientnet


def normal(seed, n, d, scale=1.0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, scale, (n, d)).astype(np.float32)


def test_frechet_distance_in_one_dimension():
    """Check the 1-D formula: (mean - mean')² + (std - std')², with the n - 1 estimator."""
    x, y = np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])
    expected = 2**2 + (np.sqrt(2) - np.sqrt(8)) ** 2
    assert fid_kid.frechet_distance(x, y) == pytest.approx(expected)


def test_frechet_distance_matches_the_matrix_root():
    mix = normal(2, 5, 5)
    x, y = normal(0, 40, 5), normal(1, 30, 5, shift=0.5) @ mix
    root = linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    gap = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    expected = gap + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert fid_kid.frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)
    assert fid_kid.frechet_distance(y, x) == pytest.approx(expected, rel=1e-5)


def test_frechet_of_fewer_vectors_than_features():
    """Check that a rotation into a space of more dimensions does not change the distance."""
    x, y = normal(0, 6, 4), normal(1, 9, 4)
    turn = np.linalg.qr(normal(2, 60, 60).astype(float))[0][:4]
    assert fid_kid.frechet_distance(x @ turn, y @ turn) == pytest.approx(
        fid_kid.frechet_distance(x, y), rel=1e-9
    )
    few = normal(3, 5, 300)
    assert fid_kid.frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert fid_kid.frechet_distance(few, few + 1) == pytest.approx(300, rel=1e-5)


def test_frechet_distance_bias_decreases_with_more_vectors():
    values = [
        fid_kid.frechet_distance(normal(0, n, 8, scale=2), normal(1, n, 8, scale=2))
        for n in (12, 100, 2000)
    ]
    assert values[0] > 4 * values[1] > 16 * values[2] > 0


def kernel_distance_by_definition(x_set, y_set):
    """Compute the unbiased estimate by a loop over all pairs."""

    def cube(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def mean_within(vectors):
        return np.mean([cube(x, y) for x, y in itertools.permutations(vectors, 2)])

    between = np.mean([cube(x, y) for x, y in itertools.product(x_set, y_set)])
    return mean_within(x_set) + mean_within(y_set) - 2 * between


def test_kernel_distance_of_two_numbers():
    """Check a hand-computed value: the kernel is 1 for (0, 0) and (0, 1), 8 for (1, 1)."""
    zeros, ones = np.zeros((2, 1)), np.ones((2, 1))
    estimate = fid_kid.kernel_distance(zeros, ones, size=2, subsets=3)
    assert estimate == pytest.approx((1 + 8 - 2, 0))


def test_kernel_distance_matches_its_definition():
    x, y = normal(0, 6, 3), normal(1, 6, 3, shift=0.7)
    estimate = fid_kid.kernel_distance(x, y, size=6, subsets=4)
    assert estimate.mean == pytest.approx(
        kernel_distance_by_definition(x.astype(float), y.astype(float))
    )
    # Each subset is the whole set, so all estimates are equal.
    assert estimate.std_error == pytest.approx(0, abs=1e-12)
    back = fid_kid.kernel_distance(y, x, size=6, subsets=4)
    assert back.mean == pytest.approx(estimate.mean)


def test_kernel_distance_over_subsets():
    """Check that means over subsets agree with the full estimate within 3 standard errors."""
    x, y = normal(0, 40, 3), normal(1, 50, 3, shift=0.5)
    whole = kernel_distance_by_definition(x.astype(float), y.astype(float))
    estimate = fid_kid.kernel_distance(x, y, size=10, subsets=400)
    assert abs(estimate.mean - whole) < 3 * estimate.std_error
    again = fid_kid.kernel_distance(x, y, size=10, subsets=400)
    other_seed = fid_kid.kernel_distance(x, y, size=10, subsets=400, seed=1)
    assert again == estimate
    assert other_seed.mean != estimate.mean
    fewer = fid_kid.kernel_distance(x, y, size=10, subsets=25)
    assert fewer.std_error / estimate.std_error == pytest.approx(4, rel=0.4)


def test_kernel_distance_is_unbiased():
    values = [
        fid_kid.kernel_distance(
            normal(2 * i, 8, 4), normal(2 * i + 1, 8, 4), size=8, subsets=2
        ).mean
        for i in range(300)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)
    assert min(values) < 0 < max(values)


@pytest.fixture(scope="module")
def levels():
    """Return features of emoji, and of emoji with increasing corruption of each kind."""
    params = efficientnet.load()
    images = np.stack([concept.pixels for concept in emoji_concepts.load(64, 40)])
    grain = np.random.default_rng(0).standard_normal(images.shape)

    def compute_features(pictures):
        pixels = np.clip(np.rint(pictures), 0, 255).astype(np.uint8)
        return efficientnet.features(params, pixels, image_size=64, batch_size=len(images))

    worse = {
        "blur": [ndimage.gaussian_filter(images.astype(float), (0, s, s, 0)) for s in (0.5, 1, 2)],
        "noise": [images + s * grain for s in (5, 20, 80)],
    }
    return compute_features(images), {
        kind: [*map(compute_features, pictures)] for kind, pictures in worse.items()
    }


@pytest.mark.parametrize("kind", ["blur", "noise"])
def test_more_corruption_increases_both_distances(levels, kind):
    whole, worse = levels
    far = [fid_kid.frechet_distance(whole, level) for level in worse[kind]]
    assert 0 < far[0] < 0.8 * far[1] < 0.64 * far[2], far
    far = [fid_kid.kernel_distance(whole, level, size=30, subsets=20) for level in worse[kind]]
    assert far[0].mean < 0.8 * far[1].mean < 0.64 * far[2].mean, far


def test_halves_of_the_emoji_are_closer_than_blurred_copies(levels):
    whole, worse = levels
    blurred = worse["blur"][2]
    near = fid_kid.kernel_distance(whole[::2], whole[1::2], size=20, subsets=20)
    far = fid_kid.kernel_distance(whole[::2], blurred[1::2], size=20, subsets=20)
    assert near.mean < far.mean / 4
    assert fid_kid.frechet_distance(whole[::2], whole[1::2]) < fid_kid.frechet_distance(
        whole[::2], blurred[1::2]
    )


def test_invalid_sets_are_rejected():
    four = np.zeros((4, 3))
    for measure in (
        fid_kid.frechet_distance,
        lambda x, y: fid_kid.kernel_distance(x, y, size=2),
    ):
        with pytest.raises(UserError, match="equal width"):
            measure(four, np.zeros((4, 2)))
        with pytest.raises(UserError, match="at least 2 vectors"):
            measure(four, four[:1])
    with pytest.raises(UserError, match=r"size=4: .* Give 2 to 3"):
        fid_kid.kernel_distance(four, four[:3], size=4)
    with pytest.raises(UserError, match="subsets=1"):
        fid_kid.kernel_distance(four, four, size=2, subsets=1)
