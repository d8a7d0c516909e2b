import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.nn import layers, rope


def make_positions(*triples):
    return jnp.array([triples], jnp.int32)


def rope_scores(query, key, position):
    """Rotate queries and keys, and return all dot products, `[L L]`."""
    rotation = rope.Rope().angles(position, query.shape[-1])
    query, key = rope.apply(query, rotation), rope.apply(key, rotation)
    return jnp.einsum("blha,bmha->lm", query, key)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rope_at_large_positions(dtype):
    """Check that angles are float32: bfloat16 cannot represent 257."""
    cos, sin = rope.Rope().angles(make_positions((256, 0, 0), (257, 0, 0)), 16)
    assert cos.dtype == sin.dtype == jnp.float32
    x = jnp.ones((1, 2, 1, 16), dtype)
    turned = rope.apply(x, (cos, sin)).astype(jnp.float32)
    assert jnp.abs(turned[:, 0] - turned[:, 1]).max() > 0.3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rope_scores_depend_on_distances_only(axis):
    keys = jax.random.split(jax.random.key(0), 3)
    query, key = (jax.random.normal(k, (1, 6, 1, 16)) for k in keys[:2])
    position = jax.random.randint(keys[2], (1, 6, 3), 0, 20)
    start = rope_scores(query, key, position)
    shifted = rope_scores(query, key, position.at[..., axis].add(300))
    np.testing.assert_allclose(shifted, start, atol=2e-3)
    stretched = rope_scores(query, key, position.at[..., axis].multiply(2))
    assert jnp.abs(stretched - start).max() > 0.1


def test_rope_preserves_norms_and_position_zero():
    x = jax.random.normal(jax.random.key(0), (1, 2, 3, 16))
    turned = rope.apply(x, rope.Rope().angles(make_positions((0, 0, 0), (5, 2, 3)), 16))
    np.testing.assert_allclose(turned[:, 0], x[:, 0], atol=1e-6)
    np.testing.assert_allclose(
        jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
    )


def test_linear_is_the_product_over_its_input_axes(key):
    layer = layers.Linear((3, 5), ("heads", "head_width", "a", "b"), jnp.float32, num_input_axes=2,
                          use_bias=True)  # fmt: skip
    x = jax.random.normal(key, (2, 4, 6, 7))
    params = nn.unbox(layer.init(jax.random.key(1), x))
    assert params["params"]["kernel"].shape == (6, 7, 3, 5)
    params["params"]["bias"] = jnp.arange(15.0).reshape(3, 5)
    expected = jnp.einsum("xyij,ijkl->xykl", x, params["params"]["kernel"])
    np.testing.assert_allclose(
        layer.apply(params, x), expected + jnp.arange(15.0).reshape(1, 1, 3, 5), atol=1e-4
    )


def test_linear_initial_output_has_unit_variance_or_is_zero(key):
    x = jax.random.normal(key, (500, 8, 16))
    layer = layers.Linear((64,), ("heads", "head_width", "width"), jnp.float32, num_input_axes=2)
    y, _ = layer.init_with_output(jax.random.key(1), x)
    np.testing.assert_allclose(y.std(), 1, atol=0.1)
    y, _ = layer.clone(zero_init=True).init_with_output(jax.random.key(1), x)
    np.testing.assert_array_equal(y, 0)


def test_timestep_embedding_separates_close_times(key):
    """Check that t is scaled: without scaling, sinusoids would hardly change over [0, 1]."""
    embedding = layers.TimestepEmbedding(32, jnp.float32)
    clock = jnp.array([[0.0, 0.01, 0.5, 0.51, 1.0]])
    out, _ = embedding.init_with_output(key, clock)
    apart = jnp.linalg.norm(out[0, :, None] - out[0, None], axis=-1)
    typical = jnp.linalg.norm(out[0], axis=-1).mean()
    assert jnp.min(apart + 1e9 * jnp.eye(5)) > 0.1 * typical


def test_sinusoids_are_float32_cosines_and_sines():
    waves = layers.sinusoidal_embedding(
        jnp.array([257.0, 256.0], jnp.bfloat16).astype(jnp.float32), 4
    )
    assert waves.dtype == jnp.float32
    rates = 10_000.0 ** -(np.arange(4) / 4)
    angle = 256.0 * rates
    np.testing.assert_allclose(waves[1], np.r_[np.cos(angle), np.sin(angle)], atol=1e-4)
