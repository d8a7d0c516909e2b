import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.autoencoder_training import codebook

TABLE = jnp.asarray([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])


def test_counts_are_exact():
    codes = jnp.asarray([[[0, 2], [2, 5]], [[2, 0], [5, 5]]])
    np.testing.assert_array_equal(codebook.count_codes(codes, 7), [2, 0, 3, 0, 0, 3, 0])


def test_entropy_loss_is_zero_for_uniform_codes():
    on_codes = jnp.tile(TABLE, (5, 1))
    assert abs(float(codebook.codebook_entropy_loss(on_codes, TABLE))) < 1e-5
    # The loss is also 0 if all codes are equally far from every vector.
    center = jnp.full((3, 2), 2.0)
    assert abs(float(codebook.codebook_entropy_loss(center, TABLE))) < 1e-5


def test_entropy_loss_is_log_k_for_a_single_code():
    on_one = jnp.tile(TABLE[:1], (20, 1))
    np.testing.assert_allclose(codebook.codebook_entropy_loss(on_one, TABLE), np.log(4), rtol=1e-5)


def test_entropy_loss_matches_its_formula():
    rng = np.random.default_rng(0)
    vectors, table = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    squares = ((vectors[:, None] - table[None]) ** 2).sum(-1)
    weights = np.exp(-squares / squares.min(axis=1).mean())
    mean = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)
    expected = np.log(5) + np.sum(mean * np.log(mean))
    loss = codebook.codebook_entropy_loss(jnp.float32(vectors), jnp.float32(table))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_entropy_gradient_moves_unused_codes_toward_vectors():
    vectors = jax.random.normal(jax.random.key(0), (64, 2))
    table = jnp.asarray([[0.0, 0.0], [3.0, 0.0]])
    gradient = jax.grad(codebook.codebook_entropy_loss, argnums=1)(vectors, table)
    assert np.all(np.isfinite(gradient))
    assert gradient[1, 0] > 0  # Gradient descent decreases this entry, whose value is 3.


def test_entropy_loss_scale_has_no_gradient():
    """Check that no gradient flows through the scale.

    Otherwise the table would move away from all vectors, which evens out the assignments.
    """
    vectors, table = jnp.asarray([[1.0], [0.5]]), jnp.asarray([[0.0], [3.0]])
    scale = float(jnp.mean(jnp.min((vectors - table.T) ** 2, axis=1))) + 1e-6

    def with_scale(table):
        mean = jnp.mean(jax.nn.softmax(-((vectors - table.T) ** 2) / scale), axis=0)
        return jnp.sum(mean * jnp.log(mean))

    gradient = jax.grad(codebook.codebook_entropy_loss, argnums=1)(vectors, table)
    np.testing.assert_allclose(gradient, jax.grad(with_scale)(table), rtol=1e-3)


def sample_vectors(vectors, quantized, num_vectors, seed=0):
    shape = (1, 1, *vectors.shape)
    key = jax.random.key(seed)
    return codebook.sample_high_error_vectors(
        key, vectors.reshape(shape), quantized.reshape(shape), num_vectors
    )


def test_vectors_are_sampled_in_proportion_to_squared_error():
    errors = np.asarray([1.0, 2.0, 3.0, 0.0])
    vectors = jnp.asarray([[0.0], [10.0], [20.0], [30.0]])
    size = 4_000
    samples = np.asarray(sample_vectors(vectors, vectors + errors[:, None], size))[:, 0]
    counts = np.asarray([(samples == value).sum() for value in (0, 10, 20, 30)])
    expected = size * errors**2 / np.sum(errors**2)
    assert counts[3] == 0
    chi_square = np.sum((counts[:3] - expected[:3]) ** 2 / expected[:3])
    assert chi_square < 2 + 4 * 2  # 2 degrees of freedom: mean 2, std 2.


def test_vectors_without_error_are_not_sampled():
    vectors = jnp.arange(1000.0)[:, None]
    chosen = vectors.at[0].add(1e-7)
    assert np.all(sample_vectors(vectors, chosen, 200) == 0)


def test_any_vector_is_sampled_if_all_errors_are_zero():
    vectors = jnp.arange(10.0)[:, None]
    samples = np.asarray(sample_vectors(vectors, vectors, 500))
    assert len(np.unique(samples)) == 10


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_only_unused_codes_restart_with_the_given_probability(probability):
    size = 2_000
    table, vectors = jnp.zeros((size, 2)), jnp.ones((size, 2))
    counts = (jnp.arange(size) % 2).astype(jnp.float32)
    restarted = codebook.restart_dead_codes(jax.random.key(0), table, counts, vectors, probability)
    moved = np.asarray(jnp.all(restarted == 1, axis=1))
    is_kept = np.asarray(jnp.all(restarted == 0, axis=1))
    assert np.all(moved | is_kept)
    assert not moved[1::2].any()
    deviation = np.sqrt(size / 2 * probability * (1 - probability))
    assert abs(moved.sum() - size / 2 * probability) <= 4 * deviation


def test_restarted_codes_get_different_vectors():
    vectors = jnp.arange(8.0).reshape(4, 2)
    counts = jnp.asarray([0.0, 1, 0, 0])
    restarted = codebook.restart_dead_codes(
        jax.random.key(0), jnp.full((4, 2), -1.0), counts, vectors, 1.0
    )
    np.testing.assert_array_equal(restarted, [[0, 1], [-1, -1], [4, 5], [6, 7]])
