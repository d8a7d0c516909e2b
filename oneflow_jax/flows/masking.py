"""Masked discrete flow: each token is independently replaced by the mask.

    P(x_t = x_1) = κ(t) = t for each slot; otherwise masked               (4)   Gat et al., Discrete
    unmasking rate of a masked slot = κ'(t) / (1 - κ(t)) = 1 / (1 - t)    (5)   Flow Matching, 2024
    P(unmasked in [t, s] | masked at t) = (κ(s) - κ(t)) / (1 - κ(t))      (6)   (5), integrated

With remasking (Wang et al., ReMDM, 2025), a step from t to s masks each unmasked slot again with
probability σ. The step unmasks more of the masked slots in return, so the expected fraction of
unmasked slots at s is still κ(s):

    P(unmasked in [t, s]) = (κ(s) - (1 - σ) κ(t)) / (1 - κ(t))            (7)
    σ <= min(1, (1 - κ(s)) / κ(t))                                        (8)
"""

import jax
import jax.numpy as jnp

from oneflow_jax.shapes import Array, Bool, Float, Key


def keep_mask(key: Key[Array, ""], t: Float[Array, "L"]) -> Bool[Array, "L"]:
    """Sample by (4) which slots are unmasked at time t: all of them at t = 1, none at t = 0."""
    return jax.random.uniform(key, t.shape) < t


def unmask_rate(t: Float[Array, "L"], max_rate: float) -> Float[Array, "L"]:
    """Return the unmasking rate (5), clipped to `max_rate` because it diverges as t -> 1.

    With the unclipped rate as the weight of each masked token's cross-entropy, the loss is an upper
    bound on -log p(text).
    """
    return 1 / jnp.maximum(1 - t, 1 / max_rate)


def unmask_probability(
    t: Float[Array, ""], s: Float[Array, ""], sigma: Float[Array, ""]
) -> Float[Array, ""]:
    """Return the probability (7) that a slot masked at t is unmasked at s; 1 where s = 1."""
    return jnp.where(s < 1, (s - (1 - sigma) * t) / (1 - t), 1.0)


def remask_probability(
    t: Float[Array, ""], s: Float[Array, ""], remask_prob: float | Float[Array, ""]
) -> Float[Array, ""]:
    """Return σ: `remask_prob` clipped to the bound (8); 0 where s = 1 or t = 0."""
    return jnp.minimum(remask_prob, (1 - s) / jnp.maximum(t, 1e-6)) * (t > 0)
