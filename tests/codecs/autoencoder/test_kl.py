import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.codecs.autoencoder import kl
from tests.codecs.autoencoder import small_models


def gaussian(mean, log_variance):
    return kl.DiagonalGaussian(jnp.full((1, 1, 1, 1), mean), jnp.full((1, 1, 1, 1), log_variance))


@pytest.mark.parametrize(("mean", "log_variance"), [(0.0, 0.0), (0.7, -1.3), (-2.0, 0.8)])
def test_kl_equals_the_integral(mean, log_variance):
    x = np.linspace(-25, 25, 200_001)
    deviation = np.exp(log_variance / 2)
    log_density = -(((x - mean) / deviation) ** 2) / 2 - np.log(deviation)
    density = np.exp(log_density) / np.sqrt(2 * np.pi)
    expected = np.sum(density * (log_density + x**2 / 2)) * (x[1] - x[0])
    actual = gaussian(mean, log_variance).kl()
    np.testing.assert_allclose(actual.item(), expected, atol=1e-5)


def test_samples_have_the_mean_and_std():
    shape = (1, 100, 100, 2)
    wide = kl.DiagonalGaussian(jnp.full(shape, 3.0), jnp.full(shape, 2 * np.log(0.5)))
    draws = wide.sample(jax.random.key(0))
    np.testing.assert_allclose([draws.mean(), draws.std()], [3, 0.5], atol=0.02)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 10)])
def test_shapes(height, width):
    encode, decode, whole = (
        small_models.jit_method(small_models.KL, n) for n in ("encode", "decode", "__call__")
    )
    params, x = (
        small_models.random_params(small_models.KL),
        small_models.random_pixels(2, height, width),
    )
    actual = encode(params, x)
    assert actual.mean.shape == actual.log_variance.shape == (2, height // 2, width // 2, 3)
    pixels = decode(params, actual.mean)
    assert pixels.shape == x.shape
    np.testing.assert_allclose(whole(params, x), pixels, atol=1e-6)


def test_log_variances_are_clipped():
    params = small_models.random_params(small_models.KL)
    params["quant_conv"]["bias"] = jnp.array([0, 0, 0, 1e4, -1e4, 0.0])
    actual = small_models.jit_method(small_models.KL, "encode")(
        params, small_models.random_pixels(2, 8, 8)
    )
    assert actual.log_variance.max() == 20
    assert actual.log_variance.min() == -30


def test_results_are_float32_though_computed_in_bfloat16():
    encode, decode = (
        small_models.jit_method(small_models.KL, n, jnp.bfloat16) for n in ("encode", "decode")
    )
    params = small_models.random_params(small_models.KL)
    actual = encode(params, small_models.random_pixels(2, 8, 8))
    assert actual.mean.dtype == actual.log_variance.dtype == jnp.float32
    assert decode(params, actual.mean).dtype == jnp.float32


def test_statistics_of_latents_are_applied_per_channel_as_diffusers_does():
    """Check (z - mean) * scaling / std, and its inverse, on channels with different statistics."""
    plain = small_models.KL
    mean, std = (0.5, -1.0, 2.0), (0.25, 2.0, 4.0)
    normalized = dataclasses.replace(plain, latents_mean=mean, latents_std=std, scaling_factor=0.5)
    params = small_models.random_params(plain)
    pixels = small_models.random_pixels(2, 8, 12)
    raw = np.asarray(small_models.jit_method(plain, "to_latents")(params, pixels))
    latents = np.asarray(small_models.jit_method(normalized, "to_latents")(params, pixels))
    for channel in range(3):
        expected = (raw[..., channel] - mean[channel]) * 0.5 / std[channel]
        np.testing.assert_allclose(latents[..., channel], expected, rtol=1e-5, atol=1e-5)
    decoded = small_models.jit_method(normalized, "from_latents")(params, latents)
    expected = small_models.jit_method(plain, "from_latents")(params, raw)
    np.testing.assert_allclose(decoded, expected, rtol=1e-3, atol=1e-3)
    # `encode` and `decode` keep unscaled latents.
    np.testing.assert_array_equal(
        small_models.jit_method(normalized, "decode")(params, raw),
        small_models.jit_method(plain, "decode")(params, raw),
    )
