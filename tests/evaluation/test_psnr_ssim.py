import numpy as np
import pytest
from scipy import ndimage

from oneflow_jax.data import emoji_concepts
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import psnr_ssim


def make_image_pair(height, width):
    """Return batches of one random image and of its noisy copy, which are equal in all calls."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    y = np.clip(x + rng.normal(0, 40, x.shape), 0, 255).astype(np.uint8)
    return x[None], y[None]


@pytest.fixture(scope="module")
def emoji():
    return np.stack([concept.pixels for concept in emoji_concepts.load(64, 40)])


# Expected values are from scikit-image 0.26.0:
# skimage.metrics.structural_similarity(x[0], y[0], channel_axis=2,
# gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255), and
# skimage.metrics.peak_signal_noise_ratio(x[0], y[0], data_range=255).
@pytest.mark.parametrize(
    ("height", "width", "ssim", "psnr"),
    [
        (11, 11, 0.9217508755910645, 16.73010585338735),
        (16, 20, 0.8956789080578552, 17.09861935330882),
    ],
)
def test_agrees_with_scikit_image(height, width, ssim, psnr):
    x, y = make_image_pair(height, width)
    np.testing.assert_allclose(psnr_ssim.ssim(x, y), [ssim], rtol=1e-12)
    np.testing.assert_allclose(psnr_ssim.psnr(x, y), [psnr], rtol=1e-12)


def test_psnr_of_known_errors():
    black = np.zeros((3, 2, 2, 3), np.uint8)
    y = black.copy()
    y[0] = 255
    y[1, 0, 0, 0] = 12  # the mean squared error is 12² / 12 = 12
    decibels = psnr_ssim.psnr(black, y)
    np.testing.assert_allclose(decibels[:2], [0, 10 * np.log10(255**2 / 12)])
    # The PSNR of an image with itself is infinite.
    assert decibels[2] == np.inf


def test_ssim_of_flat_images_compares_brightness():
    """Check flat images: (2 a b + C1) / (a² + b² + C1), without the structure term."""
    x, y = (np.full((1, 12, 12, 3), value, np.uint8) for value in (100, 200))
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 200 + c1) / (100**2 + 200**2 + c1)
    np.testing.assert_allclose(psnr_ssim.ssim(x, y), [expected], rtol=1e-9)


def test_ssim_of_a_negative_is_below_zero():
    x, _ = make_image_pair(20, 20)
    assert psnr_ssim.ssim(x, 255 - x)[0] < -0.5


@pytest.mark.parametrize("measure", [psnr_ssim.psnr, psnr_ssim.ssim])
def test_metrics_are_symmetric_and_per_pair(emoji, measure):
    x, y = emoji[:6], emoji[6:12]
    values = measure(x, y)
    assert values.shape == (6,)
    np.testing.assert_allclose(values, measure(y, x), rtol=1e-12)
    np.testing.assert_allclose(values[2:3], measure(x[2:3], y[2:3]), rtol=1e-12)
    assert np.all(values < measure(x, np.clip(x, 1, 254)))


def test_identical_images_have_ssim_one_and_infinite_psnr(emoji):
    np.testing.assert_allclose(psnr_ssim.ssim(emoji, emoji), 1, rtol=1e-12)


@pytest.mark.parametrize("measure", [psnr_ssim.psnr, psnr_ssim.ssim])
@pytest.mark.parametrize("kind", ["blur", "noise"])
def test_more_noise_lowers_both_metrics(emoji, measure, kind):
    grain = np.random.default_rng(0).standard_normal(emoji.shape)
    values = []
    for level in (0.5, 1, 2):
        if kind == "blur":
            worse = ndimage.gaussian_filter(emoji.astype(float), (0, level, level, 0))
        else:
            worse = emoji + 30 * level * grain
        values.append(measure(emoji, np.clip(np.rint(worse), 0, 255).astype(np.uint8)))
    assert np.all(values[0] > values[1])
    assert np.all(values[1] > values[2])


def test_incomparable_images_are_rejected():
    small = np.zeros((1, 10, 20, 3), np.uint8)
    with pytest.raises(UserError, match="at least 11 x 11 pixels, not 10 x 20"):
        psnr_ssim.ssim(small, small)
    assert psnr_ssim.psnr(small, small)[0] == np.inf
    for measure in (psnr_ssim.psnr, psnr_ssim.ssim):
        with pytest.raises(UserError, match="equal shape"):
            measure(*(np.zeros((count, 12, 12, 3), np.uint8) for count in (1, 2)))
        with pytest.raises(UserError, match="not float32"):
            measure(np.zeros((1, 12, 12, 3), np.uint8), np.zeros((1, 12, 12, 3), np.float32))
        with pytest.raises(UserError, match=r"\(12, 12, 3\)"):
            measure(np.zeros((12, 12, 3), np.uint8), np.zeros((12, 12, 3), np.uint8))
