import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.flows import gaussian, predictions

KEYS = jax.random.split(jax.random.key(0), 4)
X_0 = jax.random.normal(KEYS[0], (20, 5))
X_1 = jax.random.normal(KEYS[1], (20, 5))
WRONG = jax.random.normal(KEYS[2], (20, 5))
T = jax.random.uniform(KEYS[3], (20,), maxval=0.9)
LATE = T.at[:5].set(0.999)
X_T = gaussian.interpolate(X_0, X_1, T)
SCORED = jnp.arange(20) % 3 > 0
PREDICTIONS = {"x1": predictions.X1Prediction(), "velocity": predictions.VelocityPrediction()}
TRUTH = {"x1": X_1, "velocity": X_1 - X_0}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_exact_prediction_has_zero_loss_and_returns_the_data(name):
    prediction = PREDICTIONS[name]
    loss = prediction.loss(TRUTH[name], X_0, X_1, LATE, SCORED)
    np.testing.assert_allclose(loss.total, 0, atol=1e-9)
    assert loss.count == SCORED.sum()
    np.testing.assert_allclose(prediction.to_x1(TRUTH[name], X_T, T), X_1, atol=1e-5)
    assert prediction.loss(TRUTH[name] + 0.1, X_0, X_1, T, SCORED).total > 0.01


def test_both_predictions_have_equal_losses():
    clean, velocity = predictions.X1Prediction(), predictions.VelocityPrediction()
    as_clean = velocity.to_x1(WRONG, X_T, T)
    np.testing.assert_allclose(
        clean.loss(as_clean, X_0, X_1, T, SCORED).total,
        velocity.loss(WRONG, X_0, X_1, T, SCORED).total,
        rtol=1e-4,
    )


def test_both_predictions_have_equal_losses_of_the_flow_map():
    """A prediction of the same ψ, as ψ or as a velocity, has the same distance from the mean."""
    clean, velocity = predictions.X1Prediction(), predictions.VelocityPrediction()
    as_clean = velocity.to_x1(WRONG, X_T, T)
    expected = velocity.map_loss(WRONG, X_1, X_T, T, SCORED)
    np.testing.assert_allclose(
        clean.map_loss(as_clean, X_1, X_T, T, SCORED).total, expected.total, rtol=1e-4
    )
    assert expected.count == SCORED.sum()
    exact = gaussian.velocity(X_1, X_T, T)
    np.testing.assert_allclose(velocity.map_loss(exact, X_1, X_T, T, SCORED).total, 0, atol=1e-6)


def test_x1_loss_weight_is_bounded_near_t_1():
    t = jnp.array([0.0, 0.5, 0.95, 0.999, 1.0])
    x = jnp.zeros((5, 3))
    losses = [
        predictions.X1Prediction(min_one_minus_t=0.1)
        .loss(x + 1, x, x, t, jnp.arange(5) == slot)
        .total
        for slot in range(5)
    ]
    np.testing.assert_allclose(losses, [1, 4, 100, 100, 100], rtol=1e-4)
