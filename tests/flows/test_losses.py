import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.flows import losses


def test_squared_error_is_averaged_over_components_and_summed_over_slots():
    prediction = jnp.array([[1.0, 2.0], [0.0, 0.0], [5.0, 5.0]])
    target = jnp.array([[0.0, 0.0], [3.0, 1.0], [0.0, 0.0]])
    scored = jnp.array([True, True, False])
    error = losses.squared_error(prediction, target, scored)
    np.testing.assert_allclose(error.total, (1 + 4) / 2 + (9 + 1) / 2)
    assert error.count == 2


def test_cross_entropy_is_in_nats_and_summed_over_scored_slots():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1.0, 1.0, 1.0]])) + 7.0
    scored = jnp.array([True, True, False])
    entropy = losses.cross_entropy(logits, jnp.array([1, 2, 0]), scored)
    np.testing.assert_allclose(entropy.total, np.log(4) - np.log(0.8), rtol=1e-5)
    assert entropy.count == 2


def test_kl_divergence_is_in_nats_and_zero_for_the_same_distribution():
    probs = jnp.array([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]])
    logits = jnp.log(jnp.array([[0.8, 0.2], [0.25, 0.75], [0.1, 0.9]])) - 3.0
    divergence = losses.kl_divergence(logits, probs, jnp.array([True, True, False]))
    by_hand = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    np.testing.assert_allclose(divergence.total, by_hand, rtol=1e-5)
    assert divergence.count == 2


def test_unscored_slots_may_be_infinite():
    scored = jnp.array([True, False])
    target = jnp.array([[1.0], [jnp.inf]])

    def total(prediction):
        return losses.squared_error(prediction, target, scored).total

    value, gradient = jax.value_and_grad(total)(jnp.zeros((2, 1)))
    assert value == 1.0
    assert gradient[0, 0] == -2.0
    logits = jnp.array([[0.0, 0.0], [jnp.nan, jnp.inf]])
    entropy = losses.cross_entropy(logits, jnp.array([0, 1]), scored)
    np.testing.assert_allclose(entropy.total, np.log(2), rtol=1e-6)


def test_loss_without_scored_slots_is_zero():
    none = jnp.zeros(3, bool)
    error = losses.squared_error(jnp.ones((3, 2)), jnp.zeros((3, 2)), none)
    assert (error.total, error.count) == (0, 0)
