"""Tokens hidden behind a mask: a discrete flow whose noise is "some word".

    P(x_t = x_1) = κ(t) = t, slot by slot; else the mask                  (4)   Gat et al., Discrete
    rate of a hidden slot = κ'(t) / (1 - κ(t)) = 1 / (1 - t)              (5)   Flow Matching, 2024
    P(revealed in [t, s] | hidden at t) = (κ(s) - κ(t)) / (1 - κ(t))      (6)   (5), integrated

With remasking (Wang et al., ReMDM, 2025) a slot that is read at t is hidden again with probability
σ, and more are revealed, so that the share of readable slots at s is still κ(s):

    P(revealed in [t, s]) = (κ(s) - (1 - σ) κ(t)) / (1 - κ(t))            (7)
    σ <= min(1, (1 - κ(s)) / κ(t))                                        (8)
"""

import jax
import jax.numpy as jnp

from oneflow_jax.shapes import Array, Bool, Float, Key


def keep_mask(key: Key[Array, ""], t: Float[Array, "L"]) -> Bool[Array, "L"]:
    """True where a slot is still readable at its time: by (4), always at t=1 and never at t=0."""
    return jax.random.uniform(key, t.shape) < t


def unmask_rate(t: Float[Array, "L"], max_rate: float) -> Float[Array, "L"]:
    """The rate of (5), at most `max_rate`: it has no bound as t nears 1.

    As the weight of a hidden token's cross-entropy it makes the loss a bound on -log p(text).
    """
    return 1 / jnp.maximum(1 - t, 1 / max_rate)


def unmask_probability(
    t: Float[Array, ""], s: Float[Array, ""], sigma: Float[Array, ""]
) -> Float[Array, ""]:
    """Probability (7) that a slot that is hidden at t is read at s; 1 where s=1."""
    return jnp.where(s < 1, (s - (1 - sigma) * t) / (1 - t), 1.0)


def remask_probability(
    t: Float[Array, ""], s: Float[Array, ""], remask_prob: float
) -> Float[Array, ""]:
    """σ: as much of `remask_prob` as (8) allows; 0 where s=1."""
    return jnp.minimum(remask_prob, (1 - s) / jnp.maximum(t, 1e-6)) * (t > 0)
