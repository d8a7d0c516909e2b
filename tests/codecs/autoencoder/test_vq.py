import jax.numpy as jnp
import numpy as np
import pytest

from tests.codecs.autoencoder import small_models


def apply_method(name, x):
    return small_models.jit_method(small_models.VQ, name)(
        small_models.random_params(small_models.VQ), x
    )


@pytest.mark.parametrize("shape", [(1, 5, 7, 2), (3, 2, 4, 2)])
def test_nearest_code_has_the_least_distance(shape):
    params = small_models.random_params(small_models.VQ)
    table = np.asarray(params["quantize"]["embedding"]["embedding"])
    vectors = np.random.default_rng(3).standard_normal(shape).astype(np.float32) / 3
    distances = np.sum((vectors[..., None, :] - table) ** 2, axis=-1)
    codes = apply_method("nearest_codes", vectors)
    np.testing.assert_array_equal(codes, distances.argmin(axis=-1))
    assert len(np.unique(codes)) > 3


def test_lookup_returns_rows_of_the_table():
    table = np.asarray(
        small_models.random_params(small_models.VQ)["quantize"]["embedding"]["embedding"]
    )
    codes = np.array([[[0, 10, 3], [3, 1, 2]]])
    np.testing.assert_array_equal(apply_method("lookup", codes), table[codes])


def test_vector_of_a_code_is_nearest_to_that_code():
    codes = jnp.arange(small_models.VQ.num_vq_embeddings).reshape(1, 1, -1)
    np.testing.assert_array_equal(
        apply_method("nearest_codes", apply_method("lookup", codes)), codes
    )


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 10)])
def test_shapes(height, width):
    x = small_models.random_pixels(2, height, width)
    codes = apply_method("encode", x)
    assert codes.shape == (2, height // 2, width // 2)
    assert jnp.issubdtype(codes.dtype, jnp.integer)
    vectors = apply_method("lookup", codes)
    assert vectors.shape == (*codes.shape, 2)
    pixels = apply_method("decode", vectors)
    assert pixels.shape == x.shape
    np.testing.assert_allclose(apply_method("__call__", x), pixels, atol=1e-6)
