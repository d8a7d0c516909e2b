"""Tests of the layout "mrope" and of scalings; test_layers.py tests the layout "axial"."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.nn import rope

MROPE = rope.Rope("mrope", theta=500.0)


def make_angles(config, *positions, head_width=16):
    cos, sin = config.angles(jnp.array([positions], jnp.int32), head_width)
    return np.arctan2(sin[0, :, 0], cos[0, :, 0])


def test_text_is_rotated_as_in_language_models():
    """Check angle i = position / theta^(2 i / A) of Su et al., eq. 15, for all angles."""
    angles = make_angles(MROPE, (3, 0, 0))[0]
    expected = 3 / 500.0 ** (2 * np.arange(8) / 16)
    np.testing.assert_allclose(np.exp(1j * angles), np.exp(1j * expected), atol=1e-6)


def test_rows_and_columns_turn_a_third_of_the_angles_each():
    start, row, column = make_angles(MROPE, (3, 0, 0), (3, 1, 0), (3, 0, 1))
    rates = 500.0 ** -(np.arange(8) / 8)
    number = np.arange(8) % 3
    for moved, axis in ((row, 1), (column, 2)):
        turned = np.exp(1j * (moved - start))
        np.testing.assert_allclose(turned, np.exp(1j * rates * (number == axis)), atol=1e-5)


def test_scores_depend_on_distances_only():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 2, 1, 16))

    def score(*positions):
        angles = MROPE.angles(jnp.array([positions], jnp.int32), 16)
        return jnp.sum(rope.apply(query, angles)[:, 0] * rope.apply(key, angles)[:, 1])

    near, far = score((1, 2, 3), (5, 0, 1)), score((101, 2, 3), (105, 0, 1))
    np.testing.assert_allclose(near, far, atol=1e-3)
    assert abs(near - score((1, 2, 3), (5, 1, 1))) > 1e-2


def test_linear_scaling_divides_all_frequencies():
    scaled = rope.Rope("mrope", 500.0, ("linear", 8.0))
    near, far = make_angles(MROPE, (1, 0, 0))[0], make_angles(scaled, (8, 0, 0))[0]
    np.testing.assert_allclose(near, far, atol=1e-6)


def test_llama3_scales_low_frequencies_only():
    scaling = rope.Llama3Scaling(8.0, 1.0, 4.0, 64)
    periods = np.array([0.5, 1, 2.5, 4, 9])
    frequencies = periods * 2 * math.pi / 64
    expected = np.array([1 / 8, 1 / 8, (1 + 1 / 8) / 2, 1, 1])
    np.testing.assert_allclose(scaling.scale(frequencies) / frequencies, expected)
    scaled = rope.Rope("mrope", 500.0, ("llama3", 8.0, 1.0, 4.0, 64))
    plain, changed = make_angles(MROPE, (1, 0, 0))[0], make_angles(scaled, (1, 0, 0))[0]
    assert changed[0] == plain[0]
    assert changed[-1] == pytest.approx(plain[-1] / 8)
