"""Linear interpolation between noise and data, and its velocity.

    x_t = (1 - t) x_0 + t x_1        (1)   Liu et al., Rectified Flow, eq. 1; t=0 noise, t=1 data
    v   = dx_t/dt = x_1 - x_0        (2)
        = (x_1 - x_t) / (1 - t)      (3)   so a network may predict x_1 instead of v

Every function takes one time per slot: `t` has one axis fewer than the vectors.
"""

import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float


def interpolate(
    x_0: Float[Array, "*b L n"], x_1: Float[Array, "*b L n"], t: Float[Array, "*b L"]
) -> Float[Array, "*b L n"]:
    """Return x_t by (1): exactly x_0 at t = 0 and exactly x_1 at t = 1."""
    t = t[..., None]
    return (1 - t) * x_0 + t * x_1


def velocity(
    x_1: Float[Array, "*b L n"],
    x_t: Float[Array, "*b L n"],
    t: Float[Array, "*b L"],
    min_one_minus_t: float = 0.0,
) -> Float[Array, "*b L n"]:
    """Return the velocity v by (3), from the clean vector or a prediction of it.

    Args:
        x_1: clean vector or x1 prediction.
        x_t: state at time t.
        t: time of each slot; below 1 unless `min_one_minus_t` is positive.
        min_one_minus_t: lower bound of the denominator 1 - t.
    """
    return (x_1 - x_t) / jnp.maximum(1 - t, min_one_minus_t)[..., None]


def x1_from_velocity(
    v: Float[Array, "*b L n"], x_t: Float[Array, "*b L n"], t: Float[Array, "*b L"]
) -> Float[Array, "*b L n"]:
    """Return x_1, given x_t and the velocity v: (3) solved for x_1."""
    return x_t + (1 - t[..., None]) * v


def euler_step(
    x_t: Float[Array, "*b L n"],
    x_1: Float[Array, "*b L n"],
    t: Float[Array, "*b L"],
    s: Float[Array, "*b L"],
) -> Float[Array, "*b L n"]:
    """Return x_s after an Euler step with velocity (3) from time t to time s.

    The result is exactly x_1 where s = 1 and t < 1, and exactly x_t where t = s. The second case
    includes finished slots, where t = s = 1.
    """
    share = jnp.where(s > t, (s - t) / jnp.where(t < 1, 1 - t, 1.0), 0.0)[..., None]
    return (1 - share) * x_t + share * x_1
