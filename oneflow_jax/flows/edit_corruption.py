"""Documents with mistakes in them, and what puts each right: what a model that revises learns from.

Each item is right with probability κ(t) = t, as in (9). Else it is, with equal chances,

    word       wrong      another word stands there                        replace
               swapped    the next such word of its document stands there, or, if
                          there is none, another                           replace
               missing                                                     insert
    picture    wrong      another picture of the row stands there          replace: make it anew
               missing                                                     insert
               noisy      moved back to a time of its own; also where the
                          row has no other picture to take its place       let it flow

and after each item that is there stands, with probability (1 - t) / 4, a word too many: delete.

The rates of Edit Flows (Havasi et al., 2025, section 3) for such a start: an item that is still
wrong at time t is put right with hazard κ'/(1-κ), (10), so that the network need only tell how
likely it is to be wrong.

A word too many needs a slot that the clean row does not have. It takes that of a missing word, or
one of the row's empty ones: slots are storage, `position` is order.
"""

import enum

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.flows import deletion, tasks
from oneflow_jax.shapes import Array, Bool, Float, Int, Key

NUM_CORRUPTION_KINDS = 3
"""Kinds of mistakes for words, and for pictures."""

SPURIOUS_RATE = 0.25
"""Words too many at t=0, for each item."""


class EditOp(enum.IntEnum):
    """What is to become of an item."""

    KEEP = 0
    DELETE = 1
    REPLACE = 2


@flax.struct.dataclass
class EditCorruption:
    """Mistakes for the items of a row; `missing`, `noisy` and `wrong` never hold together.

    Attributes:
        ids, latents: what stands in each slot, right or wrong.
        wrong: True where that is not what should.
        missing: True where the item is absent.
        noisy: True where a picture has a time of its own ...
        time: ... namely this; 1 elsewhere.
    """

    ids: Int[Array, "*b L"]
    latents: Float[Array, "*b L C"]
    wrong: Bool[Array, "*b L"]
    missing: Bool[Array, "*b L"]
    noisy: Bool[Array, "*b L"]
    time: Float[Array, "*b L"]


def sample(
    key: Key[Array, ""],
    t: Float[Array, "L"],
    canvas: Canvas,
    text_id_range: tuple[int, int],
    eligible: Bool[Array, "L"],
) -> EditCorruption:
    """Mistakes in the items of a clean row.

    Args:
        key: randomness.
        t: time of each slot's document.
        canvas: the clean row.
        text_id_range: range of the ids that wrong words are drawn from.
        eligible: True where there may be mistakes.
    """
    key_item, key_slot, key_word, key_shift, key_time = jax.random.split(key, 5)
    # What concerns a picture is drawn once for all its slots.
    by_item = jnp.where(
        canvas.is_text,
        jax.random.uniform(key_slot, t.shape),
        tasks.uniform_per_group(key_item, canvas.span),
    )
    free = canvas.free & eligible
    mistaken = free & (by_item >= t)
    # Given a mistake, what is left of its number is uniform again.
    kind = jnp.floor(NUM_CORRUPTION_KINDS * (by_item - t) / jnp.maximum(1 - t, 1e-6)).astype(int)
    word, picture = mistaken & canvas.is_text, mistaken & canvas.is_image
    partner = _next_in_document(word & (kind == 1), canvas.segment)
    swapped = word & (kind == 1) & (canvas.ids[partner] != canvas.ids)
    random = jax.random.randint(key_word, t.shape, *text_id_range)
    ids = jnp.where(word & (kind <= 1), random, canvas.ids)
    ids = jnp.where(swapped, canvas.ids[partner], ids)
    other = _other_image_slots(key_shift, canvas)
    differs = jnp.any(canvas.latents[other] != canvas.latents, axis=-1)
    differs = jnp.zeros(t.shape[0] + 1, bool).at[canvas.span].max(differs)[canvas.span]
    strange = picture & (kind == 0) & differs
    noisy = picture & ((kind == 2) | ((kind == 0) & ~differs))
    return EditCorruption(
        ids=ids,
        latents=jnp.where(strange[:, None], canvas.latents[other], canvas.latents),
        wrong=(word & (ids != canvas.ids)) | strange,
        missing=(word & (kind == 2)) | (picture & (kind == 1)),
        noisy=noisy,
        time=jnp.where(noisy, tasks.uniform_per_group(key_time, canvas.span), 1.0),
    )


def insert_spurious(
    key: Key[Array, ""],
    t: Float[Array, "L"],
    canvas: Canvas,
    anchors: Bool[Array, "L"],
    text_id_range: tuple[int, int],
) -> tuple[Canvas, Int[Array, "L"]]:
    """The row with words too many; and for each of their slots, the slot they stand after, else -1.

    Args:
        key: randomness.
        t: time of each slot's document.
        canvas: a row in the order of its slots, what is missing from it PAD.
        anchors: True for the items, at their last slots, after which there may be one.
        text_id_range: range of the ids that they are drawn from.
    """
    key_luck, key_word = jax.random.split(key)
    luck = jax.random.uniform(key_luck, t.shape)
    room = canvas.kind == Modality.PAD
    after = anchors & ~room & (luck < SPURIOUS_RATE * (1 - t))
    after &= jnp.cumsum(after) <= jnp.sum(room)
    # The n-th word too many takes the n-th slot that is empty.
    slots = jnp.arange(t.shape[0])
    owner = (
        jnp.zeros_like(slots)
        .at[jnp.where(after, jnp.cumsum(after) - 1, slots.size)]
        .set(slots, mode="drop")
    )
    rank = jnp.cumsum(room) - 1
    extra = room & (rank < jnp.sum(after))
    source = owner[jnp.maximum(rank, 0)]
    before = jnp.cumsum(after) - after
    begins = canvas.is_text & (canvas.position[:, 0] == 0)
    inside = before - jax.lax.cummax(jnp.where(begins, before, 0))
    order = jnp.where(room, 0, canvas.position[:, 0] + inside)
    order = jnp.where(extra, order[source] + 1, order)
    random = jax.random.randint(key_word, t.shape, *text_id_range)
    grown = canvas.replace(
        ids=jnp.where(extra, random, canvas.ids),
        kind=jnp.where(extra, int(Modality.TEXT), canvas.kind),
        segment=jnp.where(extra, canvas.segment[source], canvas.segment),
        # Unique: clean rows number their spans below the number of slots.
        span=jnp.where(extra, slots.size + slots, canvas.span),
        position=jnp.where(extra[:, None], 0, canvas.position).at[:, 0].set(order),
    )
    return grown, jnp.where(extra, source, -1)


def _next_in_document(selected: Bool[Array, "L"], segment: Int[Array, "L"]) -> Int[Array, "L"]:
    """The next chosen slot of the same document after each slot; after the last, the first."""
    length = selected.shape[0]
    at = jnp.where(selected, jnp.arange(length), length)
    first = jnp.full(length + 1, length).at[segment].min(at)[segment]
    upcoming = jnp.append(jax.lax.cummin(at, reverse=True)[1:], length)
    inside = (upcoming < length) & (segment[jnp.minimum(upcoming, length - 1)] == segment)
    return jnp.minimum(jnp.where(inside, upcoming, first), length - 1)


def _other_image_slots(key: Key[Array, ""], canvas: Canvas) -> Int[Array, "L"]:
    """For each patch, the slot of the same patch in another picture of the row, if there is one.

    All pictures have equally many patches.
    """
    slots = jnp.arange(canvas.kind.shape[0])
    first = canvas.is_image & deletion.item_starts(canvas)
    count = jnp.sum(first)
    number = jnp.maximum(jnp.cumsum(first) - 1, 0)
    start = jnp.zeros_like(slots).at[jnp.where(first, number, slots.size)].set(slots, mode="drop")
    shift = jax.random.randint(key, (), 1, jnp.maximum(count, 2))
    other = start[(number + shift) % jnp.maximum(count, 1)] + slots - start[number]
    return jnp.where(canvas.is_image, other, slots)
