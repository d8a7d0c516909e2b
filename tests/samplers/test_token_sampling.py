import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.samplers import token_sampling
from oneflow_jax.samplers.token_sampling import TokenSampling

PROBS = np.array([0.4, 0.05, 0.3, 0.15, 0.1], np.float32)
LOGITS = jnp.log(PROBS)[None]
ALL_ALLOWED = jnp.ones(5, bool)


def sampling_probs(sampling, allowed=ALL_ALLOWED):
    return np.exp(token_sampling.sampling_log_probs(LOGITS, allowed, sampling))[0]


def test_default_options_keep_the_distribution():
    np.testing.assert_allclose(sampling_probs(TokenSampling()), PROBS, rtol=1e-5)


def test_disallowed_tokens_are_never_sampled():
    legal = token_sampling.allowed_ids(((1, 3), (4, 5)), 5)
    np.testing.assert_array_equal(legal, [False, True, True, False, True])
    np.testing.assert_allclose(
        sampling_probs(TokenSampling(), legal), PROBS * legal / 0.45, rtol=1e-5
    )
    cold = sampling_probs(TokenSampling(temperature=0.0), legal)
    np.testing.assert_array_equal(cold, [0, 0, 1, 0, 0])


def test_temperature_raises_probabilities_to_the_inverse_power():
    expected = PROBS**2 / np.sum(PROBS**2)
    np.testing.assert_allclose(sampling_probs(TokenSampling(temperature=0.5)), expected, rtol=1e-5)


@pytest.mark.parametrize(("top_p", "left"), [(0.3, [0]), (0.5, [0, 2]), (0.9, [0, 2, 3, 4])])
def test_top_p_keeps_the_most_probable_tokens_up_to_p(top_p, left):
    is_kept = np.isin(np.arange(5), left)
    expected = PROBS * is_kept / np.sum(PROBS * is_kept)
    np.testing.assert_allclose(
        sampling_probs(TokenSampling(top_p=top_p)), expected, rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize(("top_k", "left"), [(1, [0]), (2, [0, 2]), (4, [0, 2, 3, 4])])
def test_top_k_keeps_exactly_k_tokens(top_k, left):
    is_kept = np.isin(np.arange(5), left)
    probs = sampling_probs(TokenSampling(top_k=top_k))
    np.testing.assert_array_equal(probs > 0, is_kept)
    np.testing.assert_allclose(probs, PROBS * is_kept / np.sum(PROBS * is_kept), rtol=1e-5)


@pytest.mark.parametrize("top_k", [0, 5, 6, 100])
def test_top_k_of_all_changes_nothing(top_k):
    np.testing.assert_allclose(sampling_probs(TokenSampling(top_k=top_k)), PROBS, rtol=1e-5)


def test_top_k_counts_only_allowed_tokens():
    """Check that tokens that are not allowed do not count, and that k may exceed their number."""
    legal = jnp.array([False, True, True, False, True])
    probs = sampling_probs(TokenSampling(top_k=2), legal)
    np.testing.assert_allclose(probs, [0, 0, 0.75, 0, 0.25], rtol=1e-5)
    expected = PROBS * np.asarray(legal) / 0.45
    np.testing.assert_allclose(sampling_probs(TokenSampling(top_k=4), legal), expected, rtol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_keeps_exactly_k_of_equal_tokens(top_k):
    logits = jnp.zeros((2, 3, 5)).at[..., 0].set(-1.0)
    log_p = np.asarray(
        token_sampling.sampling_log_probs(logits, ALL_ALLOWED, TokenSampling(top_k=top_k))
    )
    np.testing.assert_array_equal(np.sum(log_p > -np.inf, axis=-1), top_k)
    np.testing.assert_allclose(np.exp(log_p).max(-1), 1 / top_k, rtol=1e-5)
    assert (log_p[..., 0] == -np.inf).all()


def test_top_p_applies_after_top_k_and_temperature():
    """Check top_p after top_k: 0.4 and 0.3 become 4/7 and 3/7, and 4/7 alone reaches 0.5."""
    both = sampling_probs(TokenSampling(top_k=2, top_p=0.5))
    np.testing.assert_allclose(both, [1, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(sampling_probs(TokenSampling(top_p=0.5)) > 0, [1, 0, 1, 0, 0])
    sharp = sampling_probs(TokenSampling(top_k=2, temperature=0.5))
    np.testing.assert_allclose(sharp, [16 / 25, 0, 9 / 25, 0, 0], rtol=1e-5)
    cold = sampling_probs(TokenSampling(top_k=2, top_p=0.5, temperature=0.0))
    np.testing.assert_array_equal(cold, [1, 0, 0, 0, 0])


def test_token_probability_ignores_the_sampling_options():
    probs_of_given = token_sampling.token_probability(
        jnp.stack([LOGITS[0], LOGITS[0]]), jnp.array([0, 3])
    )
    np.testing.assert_allclose(probs_of_given, [0.4, 0.15], rtol=1e-5)


def select_many(unmask_prob, unmask_order, masked, confidence, count=4000):
    keys = jax.random.split(jax.random.key(0), count)

    def one(key):
        return token_sampling.select_to_unmask(
            key, masked, jnp.float32(unmask_prob), confidence, unmask_order
        )

    return np.asarray(jax.vmap(one)(keys))


MASKED = jnp.array([True, False, True, True, False, True])
CONFIDENCE = jnp.array([0.1, 1.0, 0.9, 0.3, 1.0, 0.5])


@pytest.mark.parametrize("order", token_sampling.UNMASK_ORDERS)
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_expected_fraction_of_slots_is_unmasked(order, share):
    selected = select_many(share, order, MASKED, CONFIDENCE)
    assert not selected[:, ~np.asarray(MASKED)].any()
    counts = selected.sum(1)
    assert abs(counts.mean() - 4 * share) < 4 * counts.std() / np.sqrt(len(counts))
    assert select_many(1.0, order, MASKED, CONFIDENCE)[:, np.asarray(MASKED)].all()
    assert not select_many(0.0, order, MASKED, CONFIDENCE).any()


def test_confidence_order_unmasks_the_most_confident_first():
    selected = select_many(0.5, "confidence", MASKED, CONFIDENCE)
    np.testing.assert_array_equal(
        selected, np.tile([False, False, True, False, False, True], (4000, 1))
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("unmask_order", "best"),
        ("remask_prob", 1.0),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=rf"sampling\.{field}={value!r}"):
        TokenSampling(**{field: value})
