"""Tests of text that is ahead of the images of its document."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.flows import gaussian, text_lead

TIMES = jnp.array([0.0, 1e-4, 0.01, 0.2, 0.5, 0.9, 1.0])


def test_the_lead_multiplies_the_odds_of_the_time():
    inside = TIMES[1:-1]
    ahead = text_lead.text_time(inside, 8.0)
    np.testing.assert_allclose(ahead / (1 - ahead), 8 * inside / (1 - inside), rtol=1e-5)


def test_all_slots_begin_and_end_together():
    np.testing.assert_array_equal(text_lead.text_time(TIMES[jnp.array([0, -1])], 5.0), [0, 1])


def test_without_lead_all_slots_have_the_same_time():
    np.testing.assert_array_equal(text_lead.text_time(TIMES, 1.0), TIMES)


@pytest.mark.parametrize("lead", [0.5, 1.0, 8.0])
def test_the_path_of_scaled_text_is_straight_in_document_time(lead):
    x_0, x_1 = jax.random.normal(jax.random.key(0), (2, len(TIMES), 4))
    y = gaussian.interpolate(x_0, lead * x_1, TIMES)
    x = gaussian.interpolate(x_0, x_1, text_lead.text_time(TIMES, lead))
    np.testing.assert_allclose(text_lead.normalize(y, TIMES, lead), x, atol=1e-5)
