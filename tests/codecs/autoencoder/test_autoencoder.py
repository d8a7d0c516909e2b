import pickle
import pickletools

import jax
import numpy as np
import pytest
from etils import epath

from oneflow_jax.codecs.autoencoder import autoencoder as autoencoder_lib
from oneflow_jax.codecs.autoencoder import diffusers_weights, tiling
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.errors import UserError
from tests.codecs.autoencoder import small_models

ARCHITECTURES = {"kl": small_models.KL, "vq": small_models.VQ}


def to_float(images):
    return images.astype(np.float32) / 127.5 - 1


def apply_method(architecture, name, x):
    return np.asarray(
        small_models.jit_method(architecture, name)(small_models.random_params(architecture), x)
    )


@pytest.fixture
def traced_calls(monkeypatch):
    """Replace the networks by resampling; return a list of (method, shape) of traced programs."""
    calls = []

    def resample_stub(model, method, params, x):
        calls.append((method, x.shape))
        return {"to_latents": lambda: downsample(x), "from_latents": lambda: upsample(x)}[method]()

    monkeypatch.setattr(autoencoder_lib, "_apply_method", resample_stub)
    return calls


def downsample(x):
    """Downsample images, and add a term that depends on the whole image."""
    differences = x[:, ::2, ::2] - x[:, 1::2, 1::2]
    return differences + x.mean(axis=(1, 2), keepdims=True)


def upsample(x):
    return x.repeat(2, axis=1).repeat(2, axis=2) * 0.5 + x.mean(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_autoencoder_equals_its_model_on_uint8_images(kind):
    architecture, pictures = ARCHITECTURES[kind], small_models.random_images(3)
    autoencoder = small_models.random_autoencoder(architecture)
    latents = autoencoder.encode(pictures)
    assert latents.dtype == np.float32
    assert latents.shape == (3, 4, 4, architecture.channels)
    np.testing.assert_allclose(
        latents, apply_method(architecture, "to_latents", to_float(pictures)), atol=1e-5
    )
    back = autoencoder.decode(latents)
    expected = apply_method(architecture, "__call__", to_float(pictures))
    assert back.dtype == np.uint8
    assert back.shape == pictures.shape
    exact = np.clip((expected + 1) * 127.5, 0, 255)
    assert np.abs(back - exact).max() < 0.51
    assert len(np.unique(back)) > 20


def test_results_do_not_depend_on_the_batch():
    autoencoder, pictures = (
        small_models.random_autoencoder(small_models.KL),
        small_models.random_images(65, 4, 4),
    )
    singly = np.concatenate([autoencoder.encode(one[None]) for one in pictures])
    assert len(np.unique(singly, axis=0)) == 65
    decoded = np.concatenate([autoencoder.decode(one[None]) for one in singly])
    for count in (1, 3, 64, 65):
        actual = autoencoder.encode(pictures[:count])
        np.testing.assert_allclose(actual, singly[:count], atol=1e-5)
        actual = autoencoder.decode(singly[:count])
        # A value halfway between two gray levels may be rounded to either.
        assert np.abs(actual.astype(int) - decoded[:count]).max() <= 1
        assert np.mean(actual != decoded[:count]) < 1e-2


def test_seven_programs_serve_any_batch_size(traced_calls):
    autoencoder, pictures = (
        Autoencoder(small_models.KL, small_models.random_params(small_models.KL)),
        small_models.random_images(200),
    )
    expected = np.asarray(downsample(to_float(pictures)))
    for count in (5, 2, 12, 3, 9, 40, 17, 63, 1, 8, 33, 70, 65, 64, 200):
        np.testing.assert_allclose(
            autoencoder.encode(pictures[:count]), expected[:count], atol=1e-5
        )
        assert len(autoencoder.decode(expected[:count])) == count
    for method in ("to_latents", "from_latents"):
        sizes = sorted(shape[0] for name, shape in traced_calls if name == method)
        assert sizes == [1, 2, 4, 8, 16, 32, 64]


def test_codes_are_those_of_the_model():
    autoencoder, pictures = (
        small_models.random_autoencoder(small_models.VQ),
        small_models.random_images(3),
    )
    codes = autoencoder.encode_codes(pictures)
    assert np.issubdtype(codes.dtype, np.integer)
    np.testing.assert_array_equal(
        codes, apply_method(small_models.VQ, "encode", to_float(pictures))
    )
    table = np.asarray(autoencoder.params["quantize"]["embedding"]["embedding"])
    np.testing.assert_allclose(table[codes], autoencoder.encode(pictures), atol=1e-6)


def test_programs_are_traced_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        autoencoder_lib,
        "_apply_method",
        lambda model, method, params, x: calls.append(method) or x[..., 0],
    )
    autoencoder = Autoencoder(small_models.VQ, small_models.random_params(small_models.VQ))
    for _ in range(2):
        autoencoder.encode_codes(small_models.random_images(3))
    assert calls == ["encode"]


def test_large_images_are_tiled(monkeypatch, traced_calls):
    monkeypatch.setattr(tiling, "TILE_SIZE", 8)
    autoencoder, pictures = (
        Autoencoder(small_models.KL, small_models.random_params(small_models.KL)),
        small_models.random_images(2, 12, 16),
    )
    latents = autoencoder.encode(pictures)
    assert traced_calls == [("to_latents", (2, 8, 8, 3))]
    expected = tiling.encode(downsample, to_float(pictures), 2, tile_size=8)
    np.testing.assert_allclose(latents, expected, atol=1e-5)
    assert np.abs(latents - downsample(to_float(pictures))).max() > 0.01
    decoded = autoencoder.decode(latents)
    assert traced_calls[1:] == [("from_latents", (2, 4, 4, 3))]
    assert decoded.shape == pictures.shape
    expected = np.asarray(tiling.decode(upsample, latents, 2, tile_size=8))
    assert np.abs(decoded - np.clip((expected + 1) * 127.5, 0, 255)).max() < 0.51


def test_indivisible_image_sizes_are_reported():
    with pytest.raises(UserError, match=r"height=7: give a multiple of 2"):
        small_models.random_autoencoder(small_models.KL).encode(small_models.random_images(1, 7, 8))


def test_autoencoder_is_saved_and_loaded(tmp_path):
    one = small_models.random_autoencoder(small_models.KL)
    diffusers_weights.save(epath.Path(tmp_path), one.architecture, one.params)
    loaded = Autoencoder.load(epath.Path(tmp_path))
    assert (
        loaded.fingerprint
        == one.fingerprint
        == diffusers_weights.fingerprint(one.architecture, one.params)
    )
    assert loaded.architecture == one.architecture
    jax.tree.map(np.testing.assert_array_equal, loaded.params, one.params)


def test_autoencoder_pickles_after_use():
    autoencoder, pictures = (
        Autoencoder(small_models.KL, small_models.random_params(small_models.KL)),
        small_models.random_images(1),
    )
    fresh = pickle.dumps(autoencoder)
    expected = autoencoder.encode(pictures)
    _ = autoencoder.fingerprint
    used = pickle.dumps(autoencoder)
    assert used == fresh
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(autoencoder.params))
    named = [value for _, value, _ in pickletools.genops(used) if isinstance(value, str)]
    assert not [name for name in named if name.startswith(("jax", "flax"))]
    again = pickle.loads(used)
    assert vars(again).keys() == {"architecture", "params"}
    np.testing.assert_array_equal(again.encode(pictures), expected)
    assert again.fingerprint == autoencoder.fingerprint
