"""The straight path from noise to data, and its velocity.

    x_t = (1 - t) x_0 + t x_1        (1)   Liu et al., Rectified Flow, eq. 1; t=0 noise, t=1 data
    v   = dx_t/dt = x_1 - x_0        (2)
        = (x_1 - x_t) / (1 - t)      (3)   so that a network may predict x_1 in place of v

Every function takes a time for each slot: `t` has one axis fewer than the vectors.
"""

import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float


def interpolate(
    x_0: Float[Array, "*b L n"], x_1: Float[Array, "*b L n"], t: Float[Array, "*b L"]
) -> Float[Array, "*b L n"]:
    """x_t by (1): exactly x_0 at t=0 and exactly x_1 at t=1."""
    t = t[..., None]
    return (1 - t) * x_0 + t * x_1


def velocity(
    x_1: Float[Array, "*b L n"],
    x_t: Float[Array, "*b L n"],
    t: Float[Array, "*b L"],
    min_one_minus_t: float = 0.0,
) -> Float[Array, "*b L n"]:
    """V by (3), from the clean vector or a prediction of it.

    Args:
        x_1: the clean vector or its prediction.
        x_t: the state.
        t: time of each slot, below 1 unless `min_one_minus_t` is positive.
        min_one_minus_t: floor of 1 - t.
    """
    return (x_1 - x_t) / jnp.maximum(1 - t, min_one_minus_t)[..., None]


def x1_from_velocity(
    v: Float[Array, "*b L n"], x_t: Float[Array, "*b L n"], t: Float[Array, "*b L"]
) -> Float[Array, "*b L n"]:
    """The x_1 at which the straight line from x_t with velocity v ends: (3) solved for x_1."""
    return x_t + (1 - t[..., None]) * v


def euler_step(
    x_t: Float[Array, "*b L n"],
    x_1: Float[Array, "*b L n"],
    t: Float[Array, "*b L"],
    s: Float[Array, "*b L"],
) -> Float[Array, "*b L n"]:
    """x_s on the straight line from x_t at time t to x_1 at time 1: Euler's step by (3).

    Exactly x_1 where s=1, and exactly x_t where t=s: also at t=s=1, where a slot is finished.
    """
    share = jnp.where(s > t, (s - t) / jnp.where(t < 1, 1 - t, 1.0), 0.0)[..., None]
    return (1 - share) * x_t + share * x_1
