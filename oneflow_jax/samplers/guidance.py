"""Classifier-free guidance: away from what the network would say without a part of the document."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Modality, NoisyCanvas
from oneflow_jax.shapes import Array, Bool, Float, Outputs

ApplyFn = Callable[[NoisyCanvas], Outputs]
"""The network bound to its parameters; a view is batched `[B L ...]`."""


@dataclasses.dataclass(frozen=True)
class GuidanceBranch:
    """One kind of guidance.

    Attributes:
        outputs: names of the outputs that it changes.
        scale: 1 changes nothing; 0 is what the network says without the part.
        without: the view without the part.
    """

    outputs: tuple[str, ...]
    scale: float
    without: Callable[[NoisyCanvas], NoisyCanvas]


def apply_cfg(apply: ApplyFn, branches: Sequence[GuidanceBranch]) -> ApplyFn:
    """`apply` with the outputs of each branch replaced by u + scale * (c - u).

    c is the output for the view, u for the view without a part (Ho and Salimans, Classifier-Free
    Diffusion Guidance, eq. 6, with scale = 1 + w). All come from one call on a batch as many times
    larger. For logits it mixes probabilities geometrically, Q ∝ Q(c)^w Q(u)^(1-w), as eq. 12 of
    OneFlow does. Branches of scale 1 cost nothing.
    """
    branches = [branch for branch in branches if branch.scale != 1.0]
    if not branches:
        return apply

    def call(view: NoisyCanvas) -> Outputs:
        views = [view, *(branch.without(view) for branch in branches)]
        every = apply(jax.tree.map(_interleave, *views))
        told = [
            {name: _deinterleave(x, n, len(views)) for name, x in every.items()}
            for n in range(len(views))
        ]
        conditional = told[0]
        changed = dict(conditional)
        for branch, unconditional in zip(branches, told[1:], strict=True):
            for name in branch.outputs:
                u = unconditional[name]
                changed[name] = u + branch.scale * (conditional[name] - u)
        return changed

    return call


def cross_modal_cfg(
    apply: ApplyFn,
    canvas: Canvas,
    heads: tuple[str, str],
    placeholders: tuple[Float[Array, "*e"], Float[Array, "B L C"]],
    scales: tuple[float, float],
) -> ApplyFn:
    """`apply` with pictures guided by words, and words by pictures.

    Without means hidden: given ones too, as they are at t=0. BOS stays.

    Args:
        apply: the network.
        canvas: the layout.
        heads: names of the outputs for words and for patches.
        placeholders: what hidden words and hidden patches look like, embeds (for each slot, or one
            for all) and latents.
        scales: for pictures and for words.
    """
    embeds, latents = placeholders
    words = canvas.is_text & (canvas.position[..., 0] > 0)

    def without(hidden: Bool[Array, "B L"], view: NoisyCanvas) -> NoisyCanvas:
        return view.replace(
            embeds=jnp.where(hidden[..., None], embeds, view.embeds),
            latents=jnp.where(hidden[..., None], latents, view.latents),
            clock=jnp.where(hidden, 0.0, view.clock),
        )

    text, image = heads
    return apply_cfg(
        apply,
        (
            GuidanceBranch((image,), scales[0], functools.partial(without, words)),
            GuidanceBranch((text,), scales[1], functools.partial(without, canvas.is_image)),
        ),
    )


def cfg_by_removal(
    apply: ApplyFn,
    heads: tuple[tuple[str, ...], tuple[str, ...]],
    scales: tuple[float, float],
) -> ApplyFn:
    """As `cross_modal_cfg`, where without means not there at all: for paradigms that delete.

    Args:
        apply: the network.
        heads: names of the outputs for words and for patches.
        scales: for pictures and for words.
    """

    def without(kind: Modality, view: NoisyCanvas) -> NoisyCanvas:
        gone = (view.kind == kind) & (view.position[..., 0] > 0)
        return view.replace(
            kind=jnp.where(gone, int(Modality.PAD), view.kind),
            segment=jnp.where(gone, 0, view.segment),
        )

    text, image = heads
    return apply_cfg(
        apply,
        (
            GuidanceBranch(image, scales[0], functools.partial(without, Modality.TEXT)),
            GuidanceBranch(text, scales[1], functools.partial(without, Modality.IMAGE)),
        ),
    )


def nfe_factor(*scales: float) -> int:
    """How often as much the network is asked with guidance of these scales."""
    return 1 + sum(scale != 1.0 for scale in scales)


def _interleave(*arrays: Array) -> Array:
    # Neighbors, not blocks, so that a batch sharded over devices stays where it is.
    return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])


def _deinterleave(interleaved: Array, index: int, count: int) -> Array:
    return interleaved.reshape(-1, count, *interleaved.shape[1:])[:, index]
