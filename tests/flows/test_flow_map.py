"""Tests of the flow map's equations on a distribution whose flow is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.flows import flow_map, gaussian, tasks

POINTS, PROBS = jnp.array([-1.0, 0.5, 2.0]), jnp.array([0.5, 0.2, 0.3])


def expected_x1(x, t):
    """Return E[x_1 | x_t = x] for x_1 in POINTS and standard normal x_0."""
    log_probs = jnp.log(PROBS) - 0.5 * jnp.square((x - t * POINTS) / (1 - t))
    return jnp.sum(jax.nn.softmax(log_probs) * POINTS)


def move(x, s, t, steps=4000):
    """Return X_{s,t}(x) by many steps of the midpoint method."""

    def step(n, x):
        at, half = s + (t - s) * n / steps, (t - s) / steps / 2
        middle = x + half * (expected_x1(x, at) - x) / (1 - at)
        return x + 2 * half * (expected_x1(middle, at + half) - middle) / (1 - at - half)

    return jax.lax.fori_loop(0, steps, step, x)


def mean(x, s, t):
    """Return ψ_{s,t}(x), equation (1) solved for ψ."""
    return ((1 - s) * move(x, s, t) - (1 - t) * x) / (t - s)


@pytest.mark.parametrize(("s", "u", "t"), [(0.0, 0.4, 0.7), (0.1, 0.15, 0.9), (0.3, 0.5, 0.95)])
def test_two_halves_have_the_mean_of_the_whole(s, u, t):
    x = jnp.float32(0.3)
    weight = flow_map.first_weight(flow_map.Interval(*map(jnp.float32, (s, u, t))))
    halves = weight * mean(x, s, u) + (1 - weight) * mean(move(x, s, u), u, t)
    np.testing.assert_allclose(halves, mean(x, s, t), atol=2e-3)
    assert abs(halves - mean(x, s, u)) > 0.01, "the halves differ, so the weight matters"


def test_a_jump_is_an_euler_step_with_the_mean():
    x, s, t = jnp.float32(0.3), jnp.float32(0.2), jnp.float32(0.8)
    jumped = gaussian.euler_step(x[None, None], mean(x, s, t)[None, None], s[None], t[None])
    np.testing.assert_allclose(jumped[0, 0], move(x, s, t), atol=1e-4)


def test_weight_at_the_ends():
    def weight(*times):
        return float(flow_map.first_weight(flow_map.Interval(*map(jnp.float32, times))))

    assert weight(0.2, 0.5, 1.0) == 0.0, "the second half alone decides at t = 1"
    assert weight(1.0, 1.0, 1.0) == weight(0.0, 0.0, 0.0) == 1.0, "slots without an interval"
    assert weight(0.2, 0.5, 0.8) == pytest.approx(0.3 * 0.2 / (0.6 * 0.5), rel=1e-5)


def test_intervals_are_ordered_and_some_span_the_whole_flow():
    u = jnp.linspace(0, 0.999, 5)
    keys = jax.random.split(jax.random.key(0), 2000)
    each = jax.vmap(lambda key: flow_map.sample_interval(key, u))(keys)
    assert jnp.all((each.start >= 0) & (each.start <= each.middle))
    assert jnp.all((each.middle <= each.end) & (each.end <= 1))
    whole = jnp.mean((each.start == 0) & (each.end == 1), axis=0)
    np.testing.assert_allclose(whole[1:], flow_map.BOUNDARY_FRACTION, atol=0.02)
    lengths = each.end - each.start
    assert jnp.mean(lengths) == pytest.approx(0.55, abs=0.02)  # 0.9 · 1/2 + 0.1 · 1


def test_tasks_with_separate_times_become_joint():
    probs = tuple(0.1 * (n + 1) for n in range(len(tasks.NAMES)))
    merged = dict(zip(tasks.NAMES, tasks.merge_into_joint(probs), strict=True))
    assert all(merged[name] == 0.0 for name in tasks.OWN_TIMES)
    assert merged["joint"] == pytest.approx(0.1 + 0.6 + 0.7 + 0.8)
    assert sum(merged.values()) == pytest.approx(sum(probs))
    assert merged["spans"] == probs[tasks.NAMES.index("spans")]
