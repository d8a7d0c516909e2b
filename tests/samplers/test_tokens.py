import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.samplers import tokens
from oneflow_jax.samplers.tokens import Choice

P = np.array([0.4, 0.05, 0.3, 0.15, 0.1], np.float32)
LOGITS = jnp.log(P)[None]
ANY = jnp.ones(5, bool)


def probabilities(choice, legal=ANY):
    return np.exp(tokens.log_probabilities(LOGITS, legal, choice))[0]


def test_nothing_asked_for_nothing_changed():
    np.testing.assert_allclose(probabilities(Choice()), P, rtol=1e-5)


def test_what_is_not_legal_is_never_drawn():
    legal = tokens.allowed(((1, 3), (4, 5)), 5)
    np.testing.assert_array_equal(legal, [False, True, True, False, True])
    np.testing.assert_allclose(probabilities(Choice(), legal), P * legal / 0.45, rtol=1e-5)
    cold = probabilities(Choice(temperature=0.0), legal)
    np.testing.assert_array_equal(cold, [0, 0, 1, 0, 0])


def test_temperature_raises_probabilities_to_its_inverse():
    expected = P**2 / np.sum(P**2)
    np.testing.assert_allclose(probabilities(Choice(temperature=0.5)), expected, rtol=1e-5)


@pytest.mark.parametrize(("top_p", "left"), [(0.3, [0]), (0.5, [0, 2]), (0.9, [0, 2, 3, 4])])
def test_top_p_keeps_the_likeliest_that_add_up_to_it(top_p, left):
    kept = np.isin(np.arange(5), left)
    expected = P * kept / np.sum(P * kept)
    np.testing.assert_allclose(probabilities(Choice(top_p=top_p)), expected, rtol=1e-4, atol=1e-7)


def test_probability_is_the_network_s_own():
    given = tokens.probability(jnp.stack([LOGITS[0], LOGITS[0]]), jnp.array([0, 3]))
    np.testing.assert_allclose(given, [0.4, 0.15], rtol=1e-5)


def read(share, order, hidden, confidence, count=4000):
    keys = jax.random.split(jax.random.key(0), count)

    def one(key):
        return tokens.read_now(key, hidden, jnp.float32(share), confidence, order)

    return np.asarray(jax.vmap(one)(keys))


HIDDEN = jnp.array([True, False, True, True, False, True])
SURE = jnp.array([0.1, 1.0, 0.9, 0.3, 1.0, 0.5])


@pytest.mark.parametrize("order", tokens.ORDERS)
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_as_many_are_read_as_the_share_says(order, share):
    found = read(share, order, HIDDEN, SURE)
    assert not found[:, ~np.asarray(HIDDEN)].any()
    counts = found.sum(1)
    assert abs(counts.mean() - 4 * share) < 4 * counts.std() / np.sqrt(len(counts))
    assert read(1.0, order, HIDDEN, SURE)[:, np.asarray(HIDDEN)].all()
    assert not read(0.0, order, HIDDEN, SURE).any()


def test_by_confidence_the_surest_come_first():
    found = read(0.5, "confidence", HIDDEN, SURE)
    np.testing.assert_array_equal(
        found, np.tile([False, False, True, False, False, True], (4000, 1))
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -0.1), ("top_p", 0.0), ("top_p", 1.1), ("order", "best"), ("remask", 1.0)],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=rf"sampling\.{field}={value!r}"):
        Choice(**{field: value})
