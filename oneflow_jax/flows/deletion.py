"""Text of any length: corrupted by deletion, restored by insertion.

A document is a list of items: tokens, and pictures, each a block of slots that counts as one.
Deleted items vanish; what is missing right after a kept item is that item's gap.

    P(kept) = κ(t) = t                                        (9)   Nguyen et al., OneFlow, eq. 2
    hazard of a missing item = κ'(t) / (1 - κ(t))             (10)  Havasi et al., Edit Flows
    P(inserted in [t, s]) = 1 - ((1 - κ(s)) / (1 - κ(t)))^λ   (11)  (10) times λ items, integrated

Interleaved times (OneFlow, eq. 10 and 11): the run's time τ goes from 0 to 2; text has time
min(1, τ); a picture is born at text time κ^-1(u), u uniform, and has time τ - κ^-1(u) from there on
(12). Before, it is absent, and missing from its gap like a token.

Nothing moves in memory: deleted slots become PAD, and positions are counted anew.
"""

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.shapes import Array, Bool, Float, Int


@flax.struct.dataclass
class Gaps:
    """What is missing, and where; all of one row.

    Attributes:
        anchor: True for kept items' last slots: the gaps.
        missing: True for deleted tokens, and for the first slot of absent pictures.
        gap: the slot in whose gap an item is missing, where `missing`.
        size: how many items are missing right after each slot, k.
    """

    anchor: Bool[Array, "*b L"]
    missing: Bool[Array, "*b L"]
    gap: Int[Array, "*b L"]
    size: Int[Array, "*b L"]


def interleaved_time(u: Float[Array, "L"], start_time: Float[Array, "L"]) -> Float[Array, "L"]:
    """Times (12) of images inserted at text time `start_time`, at τ = 2u; below 0 if not yet."""
    return jnp.minimum(2 * u - start_time, 1.0)


def insert_probability(
    t: Float[Array, ""], s: Float[Array, ""], num_missing: Float[Array, "*gaps"]
) -> Float[Array, "*gaps"]:
    """Probability (11) of an insertion into a gap that lacks `num_missing` items; 1 where s=1."""
    left = jnp.where(s < 1, (1 - s) / jnp.where(t < 1, 1 - t, 1.0), 0.0)
    return 1 - left**num_missing


def item_starts(canvas: Canvas) -> Bool[Array, "L"]:
    """True for every token and for the first slot of each picture of a clean row."""
    new = jnp.diff(canvas.span, prepend=0) != 0
    return canvas.is_text | (canvas.is_image & new)


def item_ends(canvas: Canvas) -> Bool[Array, "L"]:
    """True for every token and for the last slot of each picture."""
    ends = jnp.diff(canvas.span, append=-1) != 0
    return canvas.is_text | (canvas.is_image & ends)


def gaps(canvas: Canvas, keep: Bool[Array, "L"]) -> Gaps:
    """The gaps of a clean row of which only `keep` is left; BOS must be kept.

    Every document begins with BOS, so that no gap lacks an anchor and none crosses into another
    document. If a picture is absent, what is missing on both of its sides falls into one gap.
    """
    slots = jnp.arange(keep.shape[0])
    anchor = keep & item_ends(canvas)
    missing = (canvas.kind != Modality.PAD) & item_starts(canvas) & ~keep
    gap = jax.lax.cummax(jnp.where(anchor, slots, 0))
    size = jnp.zeros_like(slots).at[gap].add(missing.astype(slots.dtype))
    return Gaps(anchor=anchor, missing=missing, gap=gap, size=size)


def compact(canvas: Canvas, keep: Bool[Array, "L"]) -> Canvas:
    """The row without what was deleted: PAD there, and orders counted anew in each document."""
    items = jnp.cumsum(keep & item_starts(canvas))
    begins = canvas.is_text & (canvas.position[:, 0] == 0)
    base = jax.lax.cummax(jnp.where(begins, items, 0))
    order = jnp.where(keep, items - base, 0)
    return canvas.replace(
        kind=jnp.where(keep, canvas.kind, int(Modality.PAD)),
        segment=jnp.where(keep, canvas.segment, 0),
        position=canvas.position.at[:, 0].set(order),
    )
