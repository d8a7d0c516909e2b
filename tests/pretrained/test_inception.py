import numpy as np
import pytest
from safetensors.numpy import save_file

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import inception
from tests.pretrained import random_inception, torch_zip

FILE = "pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def tensors():
    return random_inception.random_tensors()


@pytest.fixture(scope="module")
def network(tensors, tmp_path_factory):
    return inception.load(
        torch_zip.write_state_dict(tmp_path_factory.mktemp("weights") / FILE, tensors)
    )


# Expected values: the same weights evaluated by pytorch-fid 0.3.0 with PyTorch 2.13, in float64.
@pytest.mark.parametrize(
    ("size", "sums", "first", "last"),
    [
        ((40, 56), (19144.72287702, 21467.30741187), 2.2134533725, 23.063899439),
        ((320, 310), (21820.68754703, 24132.18333374), 2.8157969594, 25.2088114672),
    ],
)
def test_values_agree_with_pytorch_fid(network, size, sums, first, last):
    """Check features of images that are enlarged or reduced to 299 x 299 pixels."""
    features = inception.features(network, random_inception.smooth_images(2, *size), batch_size=2)
    assert features.shape == (2, 2048)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features.sum(axis=1, dtype=float), sums, rtol=1e-5)
    np.testing.assert_allclose([features[0, 0], features[1, -3]], [first, last], rtol=1e-4)


def test_images_are_independent_and_in_order(network):
    pictures = random_inception.smooth_images(3, 40, 56)
    features = inception.features(network, pictures, batch_size=2)
    alone = inception.features(network, pictures[2:], batch_size=2)
    np.testing.assert_allclose(features[2:], alone, rtol=1e-4, atol=1e-3)
    assert np.abs(features[0] - features[2]).max() > 1


def test_empty_batch(network):
    assert inception.features(network, np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 2048)


def test_invalid_images_are_rejected(network):
    with pytest.raises(UserError, match="Inception needs uint8 images"):
        inception.features(network, np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(UserError, match="batch_size=0"):
        inception.features(network, np.zeros((1, 8, 8, 3), np.uint8), 0)


def test_other_files_are_refused(tensors, tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(UserError, match=r"weights\.safetensors: the file does not exist"):
        inception.load(path)
    few = dict(list(tensors.items())[:5])
    save_file(few, path)
    with pytest.raises(UserError, match=r"tensor Conv2d_1a_3x3\.bn\.running_mean \(32,\) is mi"):
        inception.load(str(path))
    save_file(few | {"Conv2d_1a_3x3.conv.weight": np.zeros((32, 3, 3, 4), "f4")}, path)
    with pytest.raises(UserError, match=r"tensor Conv2d_1a_3x3\.conv\.weight .*\(32, 3, 3, 3\)"):
        inception.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AuxLogits.fc.bias": np.zeros(9, "f4")}, r"tensor AuxLogits\.fc\.bias \(9,\)"),
        ({"fc.weight": np.zeros((1000, 2048), "f4")}, r"tensor fc\.weight .*\(1008, 2048\)"),
    ],
)
def test_torchvision_weights_are_refused(tensors, tmp_path, change, message):
    """Check that weights of torchvision are refused: they would fit, but give no valid FID."""
    path = tmp_path / "weights.safetensors"
    save_file(tensors | change, path)
    with pytest.raises(UserError, match=message):
        inception.load(path)
