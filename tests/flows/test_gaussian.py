import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.flows import gaussian

KEYS = jax.random.split(jax.random.key(0), 3)
X_0 = 3 * jax.random.normal(KEYS[0], (50, 7))
X_1 = 3 * jax.random.normal(KEYS[1], (50, 7))
T = jax.random.uniform(KEYS[2], (50,), maxval=0.9)


def test_the_path_begins_at_noise_and_ends_at_data_exactly():
    np.testing.assert_array_equal(gaussian.interpolate(X_0, X_1, jnp.zeros(50)), X_0)
    np.testing.assert_array_equal(gaussian.interpolate(X_0, X_1, jnp.ones(50)), X_1)


def test_each_slot_moves_at_its_own_time():
    t = jnp.linspace(0.0, 1.0, 50)
    x_t = gaussian.interpolate(jnp.zeros((50, 7)), jnp.ones((50, 7)), t)
    np.testing.assert_allclose(x_t, np.tile(np.asarray(t)[:, None], 7))


def test_velocity_is_the_derivative_of_the_path():
    v = X_1 - X_0
    x_t = gaussian.interpolate(X_0, X_1, T)
    np.testing.assert_allclose(gaussian.velocity(X_1, x_t, T), v, atol=1e-4)
    later = gaussian.interpolate(X_0, X_1, T + 0.05)
    np.testing.assert_allclose(later - x_t, 0.05 * v, atol=1e-5)


def test_x1_from_velocity_inverts_velocity():
    x_t = gaussian.interpolate(X_0, X_1, T)
    np.testing.assert_allclose(gaussian.x1_from_velocity(X_1 - X_0, x_t, T), X_1, atol=1e-5)


def test_velocity_is_bounded_near_t_1():
    t = jnp.full(50, 0.999)
    x_t = gaussian.interpolate(X_0, X_1, t)
    v = gaussian.velocity(X_1 + 1, x_t, t, 0.05) - gaussian.velocity(X_1, x_t, t, 0.05)
    np.testing.assert_allclose(v, 1 / 0.05, rtol=1e-4)


def test_euler_step_is_exact_at_both_ends():
    keys = jax.random.split(jax.random.key(0), 2)
    x_t, x_1 = (jax.random.normal(key, (5, 3)) for key in keys)
    t, s = jnp.array([0.2, 0.2, 0.7, 1.0, 0.9]), jnp.array([0.2, 0.5, 1.0, 1.0, 1.0])
    x_s = gaussian.euler_step(x_t, x_1, t, s)
    np.testing.assert_array_equal(x_s[0], x_t[0])
    v = gaussian.velocity(x_1[1:2], x_t[1:2], t[1:2])
    np.testing.assert_allclose(x_s[1], x_t[1] + 0.3 * v[0], rtol=1e-5)
    np.testing.assert_array_equal(x_s[2], x_1[2])
    # At t = 1 the state must not depend on the prediction.
    np.testing.assert_array_equal(x_s[3], x_t[3])
    np.testing.assert_array_equal(x_s[4], x_1[4])
