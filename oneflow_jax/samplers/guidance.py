"""Classifier-free guidance: away from what the network would say without the words."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import View
from oneflow_jax.shapes import Array, Float, Outputs

Apply = Callable[[View], Outputs]
"""The network bound to its parameters; a view is batched `[B L ...]`."""


def guided(
    apply: Apply,
    scale: float,
    name: str,
    without: Callable[[View], View],
) -> Apply:
    """`apply` with output `name` replaced by u + scale * (c - u).

    c is the output for the view, u for `without(view)` (Ho and Salimans, Classifier-Free
    Diffusion Guidance, eq. 6, with scale = 1 + w). Both come from one call on a batch twice as
    large. Scale 1 is `apply` itself.
    """
    if scale == 1.0:
        return apply

    def call(view: View) -> Outputs:
        both = apply(jax.tree.map(_pair, view, without(view)))
        conditional = {key: _half(value, 0) for key, value in both.items()}
        u = _half(both[name], 1)
        return conditional | {name: u + scale * (conditional[name] - u)}

    return call


def _pair(conditional: Array, unconditional: Array) -> Array:
    # Neighbors, not halves, so that a batch sharded over devices stays where it is.
    return jnp.stack([conditional, unconditional], axis=1).reshape(-1, *conditional.shape[1:])


def _half(both: Float[Array, "b L n"], which: int) -> Float[Array, "B L n"]:
    return both.reshape(-1, 2, *both.shape[1:])[:, which]
