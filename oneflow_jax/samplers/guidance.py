"""Classifier-free guidance of images by text and of text by images."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Modality, NoisyCanvas
from oneflow_jax.samplers import plan_values
from oneflow_jax.shapes import Array, Bool, Float, Outputs

ApplyFn = Callable[[NoisyCanvas], Outputs]
"""The network with its parameters: from a batch of rows, fields `[B L ...]`, to outputs."""


@dataclasses.dataclass(frozen=True)
class GuidanceBranch:
    """An unconditional branch of guidance.

    Attributes:
        outputs: names of the network outputs that guidance changes.
        scale: guidance scale; 1 is the conditional prediction, 0 the unconditional one.
        drop_condition: function that removes the condition from a view.
    """

    outputs: tuple[str, ...]
    scale: plan_values.Number
    drop_condition: Callable[[NoisyCanvas], NoisyCanvas]


def apply_cfg(apply: ApplyFn, branches: Sequence[GuidanceBranch]) -> ApplyFn:
    """Return `apply` with guidance: each output that a branch names becomes u + scale * (c - u).

    c is the output for the view, and u is the output for the view without the condition (Ho and
    Salimans, Classifier-Free Diffusion Guidance, eq. 6, with scale = 1 + w). One call computes all
    outputs, on a batch that is 1 + (number of branches) times larger. For logits, the formula
    combines probabilities geometrically, Q ∝ Q(c)^scale Q(u)^(1 - scale), as in OneFlow, eq. 12.
    Branches with scale 1 are skipped.
    """
    branches = [branch for branch in branches if is_guided(branch.scale)]
    if not branches:
        return apply

    def call(view: NoisyCanvas) -> Outputs:
        views = [view, *(branch.drop_condition(view) for branch in branches)]
        stacked = apply(jax.tree.map(_interleave, *views))
        outputs = [
            {name: _deinterleave(x, n, len(views)) for name, x in stacked.items()}
            for n in range(len(views))
        ]
        conditional = outputs[0]
        changed = dict(conditional)
        for branch, unconditional in zip(branches, outputs[1:], strict=True):
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
    scales: tuple[plan_values.Number, plan_values.Number],
) -> ApplyFn:
    """Return `apply` with guidance of images by text, and of text by images.

    The unconditional branch of images hides all text slots except BOS, including given ones; the
    unconditional branch of text hides all image slots. Hidden slots hold placeholders at t = 0.

    Args:
        apply: the network.
        canvas: the rows, for the modality and position of each slot.
        heads: names of the outputs for text and for patches.
        placeholders: embeddings of hidden text slots (one per slot, or one for all slots) and
            latents of hidden image slots.
        scales: guidance scales of images and of text.
    """
    embeds, latents = placeholders
    is_text_slot = canvas.is_text & (canvas.position[..., 0] > 0)

    def without(hidden: Bool[Array, "B L"], view: NoisyCanvas) -> NoisyCanvas:
        return view.replace(
            embeds=jnp.where(hidden[..., None], embeds, view.embeds),
            latents=jnp.where(hidden[..., None], latents, view.latents),
            time=jnp.where(hidden, 0.0, view.time),
        )

    text, image = heads
    return apply_cfg(
        apply,
        (
            GuidanceBranch((image,), scales[0], functools.partial(without, is_text_slot)),
            GuidanceBranch((text,), scales[1], functools.partial(without, canvas.is_image)),
        ),
    )


def cfg_by_removal(
    apply: ApplyFn,
    heads: tuple[tuple[str, ...], tuple[str, ...]],
    scales: tuple[plan_values.Number, plan_values.Number],
) -> ApplyFn:
    """Return `apply` with guidance for paradigms that delete items.

    The unconditional branch of images removes all text slots except BOS; the unconditional branch
    of text removes all image slots. Removed slots are PAD, whereas `cross_modal_cfg` replaces slots
    by placeholders.

    Args:
        apply: the network.
        heads: names of the outputs for text and for patches.
        scales: guidance scales of images and of text.
    """

    def without(kind: Modality, view: NoisyCanvas) -> NoisyCanvas:
        gone = (view.modality == kind) & (view.position[..., 0] > 0)
        return view.replace(
            modality=jnp.where(gone, int(Modality.PAD), view.modality),
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


def is_guided(scale: plan_values.Number) -> bool:
    """Return whether guidance with this scale needs a forward pass of its own."""
    return not plan_values.is_neutral(scale, 1.0)


def nfe_factor(*scales: plan_values.Number) -> int:
    """Return the factor by which guidance with these scales multiplies the NFE."""
    return 1 + sum(map(is_guided, scales))


def _interleave(*arrays: Array) -> Array:
    # Interleave rows instead of concatenating batches. Then each device has all views of its rows,
    # and a sharded batch needs no communication.
    return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])


def _deinterleave(interleaved: Array, index: int, count: int) -> Array:
    return interleaved.reshape(-1, count, *interleaved.shape[1:])[:, index]
