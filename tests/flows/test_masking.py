import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.flows import masking

GRID = np.linspace(0, 0.95, 20)


def test_keep_probability_follows_the_schedule():
    start, middle, end = jax.random.split(jax.random.key(0), 3)
    assert masking.keep_mask(end, jnp.ones(10_000)).all()
    assert not masking.keep_mask(start, jnp.zeros(10_000)).any()
    share = float(masking.keep_mask(middle, jnp.full(10_000, 0.3)).mean())
    assert abs(share - 0.3) < 4 * np.sqrt(0.21 / 10_000)


def test_unmask_rate_is_the_capped_hazard():
    t = jnp.array([0.0, 0.5, 0.75, 0.99, 1.0])
    np.testing.assert_allclose(masking.unmask_rate(t, 10.0), [1, 2, 4, 10, 10], rtol=1e-6)


@pytest.mark.parametrize("remask", [0.0, 0.3, 0.99])
def test_step_leaves_the_scheduled_fraction_unmasked(remask):
    for t in GRID:
        for s in (t + 0.01, t + 0.04, 1.0):
            t_, s_ = jnp.float32(t), jnp.float32(s)
            sigma = masking.remask_probability(t_, s_, remask)
            assert 0 <= sigma <= remask
            p = masking.unmask_probability(t_, s_, sigma)
            assert 0 <= p <= 1 + 1e-6
            np.testing.assert_allclose((1 - t) * p + t * (1 - sigma), s, atol=1e-5)


def test_last_step_unmasks_all_and_remasks_none():
    last = jnp.float32(0.9), jnp.float32(1.0)
    assert masking.remask_probability(*last, 0.5) == 0
    assert masking.unmask_probability(*last, jnp.float32(0.0)) == 1
