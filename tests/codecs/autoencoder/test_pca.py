import numpy as np
import pytest

from oneflow_jax.codecs import patches
from oneflow_jax.codecs.autoencoder import pca
from tests.codecs.autoencoder import small_models

SIDE, NUM_COMPONENTS = 2, 12


def smooth_images(count=60):
    """Return smooth images with values far from 0 and 255, so that nothing is clipped."""
    draws = np.random.default_rng(0)
    coarse = draws.uniform(80, 170, (count, 3, 4, 3)).repeat(4, axis=1).repeat(2, axis=2)
    ramp = np.linspace(-1, 1, 12)[:, None, None] * draws.uniform(-25, 25, (count, 1, 1, 3))
    return np.rint(coarse + ramp + draws.normal(0, 4, coarse.shape)).astype(np.uint8)


def to_patches(images):
    return np.concatenate([patches.to_patches(one.astype(np.float64), SIDE) for one in images])


def loss(images, reconstructions):
    """Return the squared error, summed over each patch and averaged over patches."""
    return np.mean(np.sum((to_patches(images) - to_patches(reconstructions)) ** 2, axis=1))


def test_all_components_are_lossless():
    images = small_models.random_images(20, 8, 12)
    rebuilt = pca.fit(images, SIDE, NUM_COMPONENTS)
    np.testing.assert_array_equal(rebuilt(images), images)
    # The same holds for images of another size that PCA was not fitted to.
    others = small_models.random_images(3, 4, 6, seed=9)
    np.testing.assert_array_equal(rebuilt(others), others)


@pytest.mark.parametrize("numbers", [1, 3, 7, 11])
def test_loss_equals_the_omitted_eigenvalues(numbers):
    images = smooth_images()
    actual_loss = loss(images, pca.fit(images, SIDE, numbers)(images))
    left_out = np.linalg.eigvalsh(np.cov(to_patches(images), rowvar=False, bias=True))[:-numbers]
    # Rounding to integers adds about 1/12 for each of the 12 numbers of a patch.
    assert actual_loss == pytest.approx(left_out.sum(), rel=1e-3, abs=1.1)
    assert left_out.sum() > 10


@pytest.mark.parametrize("numbers", [1, 4])
def test_no_other_basis_has_a_lower_loss(numbers):
    images = smooth_images()
    actual_loss = loss(images, pca.fit(images, SIDE, numbers)(images))
    around = to_patches(images) - to_patches(images).mean(axis=0)
    draws = np.random.default_rng(1)
    best = np.linalg.svd(around, full_matrices=False)[2][:numbers].T
    for n in range(50):
        # No random basis, and no basis close to the optimum, has a lower loss.
        basis, _ = np.linalg.qr(
            best * (n % 2) * 20 + draws.standard_normal((NUM_COMPONENTS, numbers))
        )
        lost = np.mean(np.sum((around - around @ basis @ basis.T) ** 2, axis=1))
        assert actual_loss < lost + 1.1


def test_zero_components_return_the_mean():
    images = smooth_images()
    (one,) = np.unique(to_patches(pca.fit(images, SIDE, 0)(images)), axis=0)
    np.testing.assert_array_equal(one, np.rint(to_patches(images).mean(axis=0)))


def test_mean_of_many_patches_is_exact():
    """Check the mean of many values: in a float32 sum above 2 ** 26, adding 203 would add 200."""
    images = np.full((1, 1024, 1024, 3), 203, np.uint8)
    rebuilt = pca.fit(images, 1, 0)
    np.testing.assert_array_equal(rebuilt(images[:, :2, :2]), images[:, :2, :2])
