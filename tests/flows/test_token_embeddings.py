import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import EmbeddingTable
from oneflow_jax.flows import token_embeddings

V, E = 11, 6


@pytest.fixture
def table():
    key_rows, key_mask = jax.random.split(jax.random.key(0))
    rows = 5 * jax.random.normal(key_rows, (V, E))
    return EmbeddingTable(embedding=rows, mask_embedding=2 + jax.random.normal(key_mask, (E,)))


def test_normalized_rows_have_unit_mean_square_and_their_own_direction(table):
    rows = table.normalize().embedding
    np.testing.assert_allclose(jnp.linalg.norm(rows, axis=-1), np.sqrt(E), rtol=1e-5)
    cosine = (
        jnp.sum(rows * table.embedding, -1) / jnp.linalg.norm(table.embedding, axis=-1) / np.sqrt(E)
    )
    np.testing.assert_allclose(cosine, 1, rtol=1e-5)
    np.testing.assert_array_equal(table.normalize().mask_embedding, table.mask_embedding)


def test_noise_has_unit_variance_around_the_mask_embedding(key, table):
    noise = np.asarray(token_embeddings.masked_noise(key, table, 20_000)) - np.asarray(
        table.mask_embedding
    )
    assert np.abs(noise.mean(0)).max() < 4 / np.sqrt(20_000)
    np.testing.assert_allclose(noise.std(0), 1, atol=0.03)


def test_expected_embedding_weights_rows_by_probability(table):
    probability = jnp.array([0.3, 0.7])
    logits = jnp.full((1, V), -1e9).at[0, jnp.array([2, 5])].set(jnp.log(probability))
    mixed = 0.3 * table.embedding[2] + 0.7 * table.embedding[5]
    np.testing.assert_allclose(
        token_embeddings.expected_embedding(logits, table)[0], mixed, rtol=1e-5
    )


def test_token_log_likelihood_is_gaussian(table):
    x = jax.random.normal(jax.random.key(3), (4, E))
    logits = token_embeddings.token_log_likelihood(x, table)
    distance = jnp.sum((x[:, None] - table.embedding[None]) ** 2, -1)
    # The logits equal -distance / 2 up to one constant per slot.
    difference = logits + 0.5 * distance
    np.testing.assert_allclose(difference - difference[:, :1], 0, atol=1e-3)


def test_greedy_decode_of_an_embedding_returns_its_token(table):
    ids = jnp.array([3, 0, 10])
    read, certainty = token_embeddings.greedy_decode(
        token_embeddings.token_log_likelihood(table.embedding[ids], table)
    )
    np.testing.assert_array_equal(read, ids)
    assert np.all((certainty > 0.9) & (certainty <= 1))
    _, even = token_embeddings.greedy_decode(jnp.zeros((2, V)))
    np.testing.assert_allclose(even, 1 / V, rtol=1e-5)
