"""Parity of our Inception with pytorch-fid: same file, same features."""

import sys
from unittest import mock

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oneflow_jax.pretrained import inception
from tests.parity.torchvision_inception import torchvision
from tests.pretrained import random_inception

with mock.patch.dict(sys.modules, torchvision=torchvision):
    from pytorch_fid import inception as theirs

TOLERANCE = 1e-4
"""Maximum absolute difference, as a fraction of the largest feature."""


@pytest.fixture(scope="module")
def tensors():
    return random_inception.random_tensors()


@pytest.fixture(scope="module")
def network(tensors):
    state = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    with mock.patch.object(theirs, "load_state_dict_from_url", return_value=state):
        return theirs.InceptionV3().eval()


@pytest.fixture(scope="module")
def ours(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "pt_inception.pth"
    torch.save({name: torch.from_numpy(value.copy()) for name, value in tensors.items()}, path)
    return inception.load(path)


@torch.no_grad()
def reference_features(network, images):
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    return network(pixels)[0].numpy()[:, :, 0, 0]


@pytest.mark.parametrize("size", [(64, 48), (299, 299), (400, 310)])
def test_features_agree(network, ours, size):
    pictures = random_inception.smooth_images(3, *size)
    expected = reference_features(network, pictures)
    actual = inception.features(ours, pictures, batch_size=2)
    assert actual.shape == expected.shape == (3, 2048)
    # The features vary between images, so that agreement is not trivial.
    assert expected.std(axis=0).mean() > 0.05 * expected.mean()
    difference = np.abs(actual - expected).max()
    print(f"{size}: {difference:.1e} of {expected.max():.2f}; sums {expected.sum(axis=1)}")
    assert difference < TOLERANCE * expected.max()


@pytest.mark.parametrize("name", ["old.pth", "same.safetensors"])
def test_other_files_give_equal_features(tensors, ours, tmp_path, name):
    path = tmp_path / name
    state = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    if name == "old.pth":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        save_file(state, path)
    jax.tree.map(np.testing.assert_array_equal, inception.load(path), ours)
