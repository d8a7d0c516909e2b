import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from oneflow_jax.codecs.autoencoder import tiling
from oneflow_jax.errors import UserError

FACTOR = 4


def convolve(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


KERNELS = [jax.random.normal(jax.random.key(n), (3, 3, 3, 3)) / 5 for n in range(2)]


class LocalModel:
    """A stub encoder and decoder with a receptive field of 2 positions; it counts its traces."""

    def __init__(self):
        self.traced_shapes = []
        self.decode = jax.jit(self._decode)
        self.encode = jax.jit(self._encode)

    def _decode(self, latents):
        self.traced_shapes.append(latents.shape)
        y = jnp.tanh(convolve(convolve(latents, KERNELS[0]), KERNELS[1]))
        return jnp.repeat(jnp.repeat(y, FACTOR, axis=1), FACTOR, axis=2)

    def _encode(self, pixels):
        self.traced_shapes.append(pixels.shape)
        batch, height, width, _ = pixels.shape
        shape = (batch, height // FACTOR, FACTOR, width // FACTOR, FACTOR, 3)
        y = pixels.reshape(shape).mean(axis=(2, 4))
        return jnp.tanh(convolve(convolve(y, KERNELS[0]), KERNELS[1]))


def random_normal(*shape):
    return jax.random.normal(jax.random.key(7), shape)


def far_from_tile_edges(axis, reach):
    """Return a mask of positions at least `reach` away from every inner tile edge."""
    place = np.arange(axis.length)
    far = np.ones(axis.length, bool)
    for start in axis.starts:
        for edge in {start, start + axis.tile_size} - {0, axis.length}:
            far &= (place < edge - reach) | (place >= edge + reach)
    return far


def test_image_up_to_tile_size_is_not_tiled():
    local = LocalModel()
    latents = random_normal(2, 5, 8, 3)
    actual = tiling.decode(local.decode, latents, FACTOR, tile_size=8 * FACTOR)
    np.testing.assert_array_equal(actual, local.decode(latents))
    pixels = random_normal(2, 32, 20, 3)
    actual = tiling.encode(local.encode, pixels, FACTOR, tile_size=32)
    np.testing.assert_array_equal(actual, local.encode(pixels))
    assert local.traced_shapes == [(2, 5, 8, 3), (2, 32, 20, 3)]


@pytest.mark.parametrize(("height", "width"), [(19, 9), (8, 23), (17, 30)])
def test_local_network_is_exact_away_from_tile_edges(height, width):
    local = LocalModel()
    latents = random_normal(2, height, width, 3)
    actual = tiling.decode(local.decode, latents, FACTOR, tile_size=8 * FACTOR)
    expected = LocalModel().decode(latents)
    assert actual.shape == expected.shape
    rows, columns = (
        far_from_tile_edges(tiling.tile_axis(size, 8, 0.25), 2) for size in (height, width)
    )
    far = np.ix_(range(2), rows.repeat(FACTOR), columns.repeat(FACTOR), range(3))
    assert rows.sum() >= 3
    assert columns.sum() >= 3
    np.testing.assert_allclose(actual[far], expected[far], atol=2e-6)
    pixels = random_normal(2, height * FACTOR, width * FACTOR, 3)
    actual = tiling.encode(local.encode, pixels, FACTOR, tile_size=8 * FACTOR)
    expected = LocalModel().encode(pixels)
    far = np.ix_(range(2), rows, columns, range(3))
    np.testing.assert_allclose(actual[far], expected[far], atol=2e-6)


def test_pointwise_network_is_exact_everywhere():
    latents = random_normal(1, 21, 13, 3)

    def decode(x):
        return jnp.repeat(jnp.repeat(x, FACTOR, axis=1), FACTOR, axis=2)

    actual = tiling.decode(decode, latents, FACTOR, tile_size=8 * FACTOR)
    np.testing.assert_allclose(actual, decode(latents), atol=1e-6)


def test_all_tiles_have_one_shape_and_are_traced_once():
    local = LocalModel()
    tiling.decode(local.decode, random_normal(1, 27, 13, 3), FACTOR, tile_size=8 * FACTOR)
    tiling.decode(local.decode, random_normal(1, 40, 9, 3), FACTOR, tile_size=8 * FACTOR)
    assert local.traced_shapes == [(1, 8, 8, 3)]


def test_several_outputs_are_blended_equally():
    pixels = random_normal(1, 40, 44, 3)
    actual = tiling.encode(lambda x: {"a": x, "b": 2 * x[..., :1]}, pixels, 1, tile_size=16)
    np.testing.assert_allclose(actual["a"], pixels, atol=1e-6)
    np.testing.assert_allclose(actual["b"], 2 * pixels[..., :1], atol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("scale", [1, 4])
def test_weights_sum_to_one_and_are_not_negative(overlap, scale):
    for length in (7, 8, 9, 15, 16, 31, 100):
        axis = tiling.tile_axis(length, 8, overlap)
        total = np.zeros(length * scale)
        for start, weight in zip(axis.starts, axis.weights(scale), strict=True):
            assert weight.min() >= 0
            total[start * scale : (start + axis.tile_size) * scale] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
def test_tiles_cover_the_axis_with_minimum_overlap(overlap):
    for length in range(1, 60):
        axis = tiling.tile_axis(length, 8, overlap)
        assert axis.tile_size == min(length, 8)
        assert axis.starts[0] == 0
        assert axis.starts[-1] == length - axis.tile_size
        shared = axis.tile_size - np.diff(axis.starts)
        assert np.all(shared >= np.floor(8 * overlap))


def test_weights_are_linear_in_overlaps():
    axis = tiling.tile_axis(14, 8, 0.25)
    assert axis.starts == (0, 6)
    first, second = axis.weights(2)
    np.testing.assert_allclose(first[-4:], [0.875, 0.625, 0.375, 0.125])
    np.testing.assert_allclose(second[:5], [0.125, 0.375, 0.625, 0.875, 1])


def test_invalid_sizes_are_reported():
    pixels = random_normal(1, 18, 20, 3)
    for sizes, message in (
        ({"tile_size": 16}, "height=18"),
        ({"tile_size": 15}, "tile_size=15|height=18"),
        ({"tile_size": 16, "overlap": 1.0}, "overlap=1.0|height=18"),
    ):
        with pytest.raises(UserError, match=message):
            tiling.encode(lambda x: x, pixels, FACTOR, **sizes)
    for sizes, message in (
        ({"tile_size": 15}, "tile_size=15"),
        ({"tile_size": 0}, "tile_size=0"),
        ({"overlap": 1.0}, "overlap=1.0"),
        ({"overlap": -0.1}, "overlap=-0.1"),
    ):
        with pytest.raises(UserError, match=message):
            tiling.decode(lambda x: x, pixels, FACTOR, **sizes)
