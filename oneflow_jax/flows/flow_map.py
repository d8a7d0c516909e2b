"""The flow map: one network call takes a state from time s to any later time t.

    ψ_{s,t}(x)   weighted mean of the x1 predictions on the ODE's path from x at time s to time t
    X_{s,t}(x) = (1 - t)/(1 - s) x + (t - s)/(1 - s) ψ_{s,t}(x)                               (1)
    ψ_{t,t}(x) = E[x_1 | x_t = x], the x1 prediction                                          (2)
    ψ_{s,t}(x) = α ψ_{s,u}(x) + (1 - α) ψ_{u,t}(X_{s,u}(x)),   s <= u <= t                    (3)
    α          = (u - s)(1 - t) / ((t - s)(1 - u))

X is the flow map of Boffi, Albergo and Vanden-Eijnden (Flow Map Matching, 2024). Written with ψ,
which is a mean of x1 predictions, (1) is `gaussian.euler_step` with ψ as the clean vector. (3)
follows from X_{s,t}(x) = X_{u,t}(X_{s,u}(x)). For text, the embedding of ψ is E times a mean of
token probabilities, so (3) holds for the probabilities too.

Training compares the two sides of (3) (progressive self-distillation): the network at (s, t) learns
the right side, which two calls of the network with shorter intervals compute.
"""

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float, Key

BOUNDARY_FRACTION = 0.1
"""Fraction of documents whose interval is the whole flow, from u = 0 to u = 1."""


@flax.struct.dataclass
class Interval:
    """Start, middle and end of an interval, as uniform numbers u or as times."""

    start: Float[Array, "*b"]
    middle: Float[Array, "*b"]
    end: Float[Array, "*b"]


def sample_interval(key: Key[Array, ""], u: Float[Array, "L"]) -> Interval:
    """Sample one interval for a row, in uniform numbers that a time sampler maps to times.

    The length is uniform in [0, 1], or 1 with probability `BOUNDARY_FRACTION`. The start is uniform
    in what is left, and the middle halves the interval.

    Args:
        key: key of the row.
        u: uniform number in [0, 1) of each slot's document.
    """
    length = jnp.minimum(jax.random.uniform(key) / (1 - BOUNDARY_FRACTION), 1.0)
    start = (1 - length) * u
    return Interval(start, start + length / 2, start + length)


def first_weight(interval: Interval) -> Float[Array, "*b"]:
    """Return α of (3), the weight of the first half; 1 where the interval has no length."""
    s, u, t = interval.start, interval.middle, interval.end
    share = (u - s) * (1 - t) / jnp.where(t > s, (t - s) * jnp.maximum(1 - u, 1e-6), 1.0)
    return jnp.where(t > s, share, 1.0)
