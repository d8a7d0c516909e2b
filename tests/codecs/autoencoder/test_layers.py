"""Tests that compare the optimized layers with plain flax.linen layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.codecs.autoencoder import layers


def assert_agree(ours, reference, x):
    """Assert that two layers have equal initial parameters, outputs and gradients."""
    start = reference.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, ours.init(jax.random.key(0), x), start)
    draws = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * draws.standard_normal(leaf.shape).astype(np.float32), start
    )

    def results(module):
        y, pull = jax.vjp(module.apply, params, x)
        return y, pull(jnp.sin(3 * y))

    actual, expected = (jax.jit(lambda m=module: results(m))() for module in (ours, reference))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), actual, expected
    )


@pytest.fixture
def x():
    return 0.5 + 2 * jax.random.normal(jax.random.key(1), (2, 5, 7, 6))


def test_conv1x1_equals_linen_conv(x):
    assert_agree(layers.conv(4, jnp.float32, None, kernel_size=1), nn.Conv(4, (1, 1)), x)


def test_group_norm_equals_linen(x):
    assert_agree(layers.group_norm(3, jnp.float32, None), nn.GroupNorm(3, epsilon=1e-6), x)


@pytest.mark.parametrize(("height", "width"), [(6, 5), (2, 8), (7, 4)])
def test_wide_convolutions_equal_linen(height, width):
    x = jax.random.normal(jax.random.key(1), (2, height, width, 6))
    assert_agree(
        layers.conv(layers.WINOGRAD_MIN_CHANNELS, jnp.float32, None),
        nn.Conv(layers.WINOGRAD_MIN_CHANNELS, (3, 3), padding=1),
        x,
    )


def test_wide_convolutions_use_winograd_conv(monkeypatch):
    """Check that wide convolutions use `winograd_conv`.

    Otherwise the test above would compare linen's convolution with itself.
    """
    called = []
    monkeypatch.setattr(
        layers, "winograd_conv", lambda x, kernel: called.append(x.shape) or x[..., :1]
    )
    channels = layers.WINOGRAD_MIN_CHANNELS
    for width, height, dtype in ((channels, 4, jnp.float32), (channels, 5, jnp.float32),
                                 (channels, 4, jnp.bfloat16), (8, 4, jnp.float32)):  # fmt: skip
        module = layers.conv(width, dtype, None)
        jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, height, 3, 2)))
    assert called == [(1, 4, 3, 2)]


class UpsampleReference(nn.Module):
    """Nearest-neighbor 2x upsampling followed by a convolution."""

    @nn.compact
    def __call__(self, x):
        doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return nn.Conv(x.shape[-1], (3, 3), padding=1, name="conv")(doubled)


def test_upsample_equals_convolution_of_the_repeated_image(x):
    assert_agree(layers.Upsample(jnp.float32), UpsampleReference(), x)


def test_group_norm_is_accurate_in_bfloat16():
    x = 3 + 0.1 * jax.random.normal(jax.random.key(1), (1, 8, 8, 4), jnp.bfloat16)
    norm = layers.group_norm(2, jnp.bfloat16, None)
    y = norm.apply(norm.init(jax.random.key(0), x), x)
    assert y.dtype == jnp.bfloat16
    grouped = np.asarray(y, np.float32).reshape(64, 2, 2)
    np.testing.assert_allclose(grouped.mean(axis=(0, 2)), 0, atol=0.01)
    np.testing.assert_allclose(grouped.std(axis=(0, 2)), 1, atol=0.01)
