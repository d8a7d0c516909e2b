"""Classifier-free guidance: away from what the network would say without a part of the document."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Kind, View
from oneflow_jax.shapes import Array, Bool, Float, Outputs

Apply = Callable[[View], Outputs]
"""The network bound to its parameters; a view is batched `[B L ...]`."""


@dataclasses.dataclass(frozen=True)
class Branch:
    """One kind of guidance.

    Attributes:
        outputs: names of the outputs that it changes.
        scale: 1 changes nothing; 0 is what the network says without the part.
        without: the view without the part.
    """

    outputs: tuple[str, ...]
    scale: float
    without: Callable[[View], View]


def guided(apply: Apply, branches: Sequence[Branch]) -> Apply:
    """`apply` with the outputs of each branch replaced by u + scale * (c - u).

    c is the output for the view, u for the view without a part (Ho and Salimans, Classifier-Free
    Diffusion Guidance, eq. 6, with scale = 1 + w). All come from one call on a batch as many times
    larger. For logits it mixes probabilities geometrically, Q ∝ Q(c)^w Q(u)^(1-w), as eq. 12 of
    OneFlow does. Branches of scale 1 cost nothing.
    """
    branches = [branch for branch in branches if branch.scale != 1.0]
    if not branches:
        return apply

    def call(view: View) -> Outputs:
        views = [view, *(branch.without(view) for branch in branches)]
        every = apply(jax.tree.map(_neighbors, *views))
        told = [
            {name: _each(x, n, len(views)) for name, x in every.items()} for n in range(len(views))
        ]
        conditional = told[0]
        changed = dict(conditional)
        for branch, unconditional in zip(branches, told[1:], strict=True):
            for name in branch.outputs:
                u = unconditional[name]
                changed[name] = u + branch.scale * (conditional[name] - u)
        return changed

    return call


def mutual(
    apply: Apply,
    canvas: Canvas,
    heads: tuple[str, str],
    corrupted: tuple[Float[Array, "*e"], Float[Array, "B L C"]],
    scales: tuple[float, float],
) -> Apply:
    """`apply` with pictures guided by words, and words by pictures.

    Without means hidden: given ones too, as they are at t=0. BOS stays.

    Args:
        apply: the network.
        canvas: the layout.
        heads: names of the outputs for words and for patches.
        corrupted: what hidden words and hidden patches look like, embeds (for each slot, or one
            for all) and latents.
        scales: for pictures and for words.
    """
    embeds, latents = corrupted
    words = canvas.is_text & (canvas.position[..., 0] > 0)

    def without(hidden: Bool[Array, "B L"], view: View) -> View:
        return view.replace(
            embeds=jnp.where(hidden[..., None], embeds, view.embeds),
            latents=jnp.where(hidden[..., None], latents, view.latents),
            clock=jnp.where(hidden, 0.0, view.clock),
        )

    text, image = heads
    return guided(
        apply,
        (
            Branch((image,), scales[0], functools.partial(without, words)),
            Branch((text,), scales[1], functools.partial(without, canvas.is_image)),
        ),
    )


def by_absence(
    apply: Apply,
    heads: tuple[tuple[str, ...], tuple[str, ...]],
    scales: tuple[float, float],
) -> Apply:
    """As `mutual`, where without means not there at all: for paradigms that delete.

    Args:
        apply: the network.
        heads: names of the outputs for words and for patches.
        scales: for pictures and for words.
    """

    def without(kind: Kind, view: View) -> View:
        gone = (view.kind == kind) & (view.position[..., 0] > 0)
        return view.replace(
            kind=jnp.where(gone, int(Kind.PAD), view.kind),
            segment=jnp.where(gone, 0, view.segment),
        )

    text, image = heads
    return guided(
        apply,
        (
            Branch(image, scales[0], functools.partial(without, Kind.TEXT)),
            Branch(text, scales[1], functools.partial(without, Kind.IMAGE)),
        ),
    )


def passes(*scales: float) -> int:
    """How often as much the network is asked with guidance of these scales."""
    return 1 + sum(scale != 1.0 for scale in scales)


def _neighbors(*copies: Array) -> Array:
    # Neighbors, not blocks, so that a batch sharded over devices stays where it is.
    return jnp.stack(copies, axis=1).reshape(-1, *copies[0].shape[1:])


def _each(every: Array, which: int, count: int) -> Array:
    return every.reshape(-1, count, *every.shape[1:])[:, which]
