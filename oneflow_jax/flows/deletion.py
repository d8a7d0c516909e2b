"""The process that deletes items of a document, and the rates of the insertions that reverse it.

A document is a list of items. An item is a token or an image; an image is a block of slots that
counts as one item. Deleted items leave the row. The items deleted right after a kept item form
the gap of that kept item.

    P(kept) = κ(t) = t                                        (9)   Nguyen et al., OneFlow, eq. 2
    hazard of a missing item = κ'(t) / (1 - κ(t))             (10)  Havasi et al., Edit Flows
    P(inserted in [t, s]) = 1 - ((1 - κ(s)) / (1 - κ(t)))^λ   (11)  λ times (10), integrated

Interleaved times (OneFlow, eq. 10 and 11): the global time τ goes from 0 to 2. Text has time min(1,
τ). An image is inserted at text time κ^-1(u) with u uniform, and from then on has time τ - κ^-1(u)
(12). Before its insertion the image is absent and counts as missing from its gap, like a deleted
token.

Content does not move between slots: deleted slots become PAD, and the others are renumbered in
`position`.
"""

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.shapes import Array, Bool, Float, Int


@flax.struct.dataclass
class Gaps:
    """The gaps of one row: where items are missing, and the number of missing items in each gap.

    Attributes:
        anchor: True at the last slot of each kept item. Each anchor has one gap.
        deleted: True for deleted tokens and for the first slot of deleted images.
        gap_slot: index of the anchor of the gap that the deleted item belongs to; valid where
            `deleted` is True.
        num_missing: number k of deleted items in the gap of each anchor; 0 in other slots.
    """

    anchor: Bool[Array, "*b L"]
    deleted: Bool[Array, "*b L"]
    gap_slot: Int[Array, "*b L"]
    num_missing: Int[Array, "*b L"]


def interleaved_time(u: Float[Array, "L"], start_time: Float[Array, "L"]) -> Float[Array, "L"]:
    """Return image times (12) at τ = 2u; each image is inserted at text time `start_time`.

    A negative time means that the image is not inserted yet.
    """
    return jnp.minimum(2 * u - start_time, 1.0)


def insert_probability(
    t: Float[Array, ""], s: Float[Array, ""], num_missing: Float[Array, "*gaps"]
) -> Float[Array, "*gaps"]:
    """Return the probability (11) of an insertion into each gap between t and s; 1 where s = 1.

    `num_missing` is the number λ of missing items in each gap.
    """
    left = jnp.where(s < 1, (1 - s) / jnp.where(t < 1, 1 - t, 1.0), 0.0)
    return 1 - left**num_missing


def item_starts(canvas: Canvas) -> Bool[Array, "L"]:
    """Return a mask of a clean row: True at every token and at the first slot of each image."""
    new = jnp.diff(canvas.span, prepend=0) != 0
    return canvas.is_text | (canvas.is_image & new)


def item_ends(canvas: Canvas) -> Bool[Array, "L"]:
    """Return a mask of a clean row: True at every token and at the last slot of each image."""
    ends = jnp.diff(canvas.span, append=-1) != 0
    return canvas.is_text | (canvas.is_image & ends)


def gaps(canvas: Canvas, keep: Bool[Array, "L"]) -> Gaps:
    """Return the gaps that a clean row has once the slots where `keep` is False are deleted.

    `keep` must be True for BOS. Every document begins with BOS, so every gap has an anchor and no
    gap extends into the next document. If an image is deleted, the items missing before and after
    it belong to the same gap.
    """
    slots = jnp.arange(keep.shape[0])
    anchor = keep & item_ends(canvas)
    missing = (canvas.modality != Modality.PAD) & item_starts(canvas) & ~keep
    gap = jax.lax.cummax(jnp.where(anchor, slots, 0))
    size = jnp.zeros_like(slots).at[gap].add(missing.astype(slots.dtype))
    return Gaps(anchor=anchor, deleted=missing, gap_slot=gap, num_missing=size)


def compact(canvas: Canvas, keep: Bool[Array, "L"]) -> Canvas:
    """Set slots to PAD where `keep` is False, and renumber the items left in each document."""
    items = jnp.cumsum(keep & item_starts(canvas))
    begins = canvas.is_text & (canvas.position[:, 0] == 0)
    base = jax.lax.cummax(jnp.where(begins, items, 0))
    order = jnp.where(keep, items - base, 0)
    return canvas.replace(
        modality=jnp.where(keep, canvas.modality, int(Modality.PAD)),
        segment=jnp.where(keep, canvas.segment, 0),
        position=canvas.position.at[:, 0].set(order),
    )
