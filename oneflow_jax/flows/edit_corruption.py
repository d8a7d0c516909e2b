"""Corruption that makes training data for editing: wrong, missing and spurious items.

Each item is left unchanged with probability κ(t) = t, as in (9) of `deletion`. Otherwise one of
three corruptions is drawn with equal probability. The network learns the edit operation in the last
column:

    item    corruption   content of its slots                             operation that undoes it
    token   random       a uniformly random token                         substitute
    token   swapped      the next swapped token of the same document;     substitute
                         a random token if both are equal
    token   deleted      the token is missing                             insert
    image   replaced     another image of the row, if the row has one     substitute (new noise)
    image   deleted      the image is missing                             insert
    image   renoised     the image, noised to a random time of its own;   integrate the flow
                         also if the row has no image to replace it with

After each remaining item, a spurious token is inserted with probability (1 - t) / 4. The operation
that undoes this insertion is delete.

Sampling follows the rates of Edit Flows (Havasi et al., 2025, section 3): an item that is still
wrong at time t is corrected with the known hazard κ'/(1-κ), see (10). So the network predicts only
the probability of each operation on an item, not its rate.

The clean row has no slot for a spurious token. The token takes the slot of a deleted item or an
unused slot of the row; `position` puts it at its place in the reading order.
"""

import enum

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.flows import deletion, tasks
from oneflow_jax.shapes import Array, Bool, Float, Int, Key

NUM_CORRUPTION_KINDS = 3
"""Number of different corruptions of a token, and also of an image."""

SPURIOUS_RATE = 0.25
"""Probability of a spurious token after each item at t = 0."""


class EditOp(enum.IntEnum):
    """Edit operation on one item."""

    KEEP = 0
    DELETE = 1
    SUBSTITUTE = 2


@flax.struct.dataclass
class EditCorruption:
    """A corrupted row.

    At most one of `deleted`, `renoised` and `substituted` is True in a slot.

    Attributes:
        ids, latents: content of each slot after corruption.
        substituted: True where the content differs from the clean row.
        deleted: True where the item is missing.
        renoised: True for the slots of images that are noised to a random time of their own.
        time: time of each slot where `renoised` is True; 1 elsewhere.
    """

    ids: Int[Array, "*b L"]
    latents: Float[Array, "*b L C"]
    substituted: Bool[Array, "*b L"]
    deleted: Bool[Array, "*b L"]
    renoised: Bool[Array, "*b L"]
    time: Float[Array, "*b L"]


def sample(
    key: Key[Array, ""],
    t: Float[Array, "L"],
    canvas: Canvas,
    text_id_range: tuple[int, int],
    eligible: Bool[Array, "L"],
) -> EditCorruption:
    """Sample a corruption of a clean row.

    Args:
        key: PRNG key.
        t: time of each slot's document.
        canvas: clean row.
        text_id_range: range of ids that random tokens are drawn from.
        eligible: True for slots that may be corrupted.
    """
    key_item, key_slot, key_word, key_shift, key_time = jax.random.split(key, 5)
    # All slots of an image share one random number.
    by_item = jnp.where(
        canvas.is_text,
        jax.random.uniform(key_slot, t.shape),
        tasks.uniform_per_group(key_item, canvas.span),
    )
    free = canvas.to_generate & eligible
    corrupted = free & (by_item >= t)
    # If by_item >= t, then (by_item - t) / (1 - t) is uniform and selects the corruption.
    kind = jnp.floor(NUM_CORRUPTION_KINDS * (by_item - t) / jnp.maximum(1 - t, 1e-6)).astype(int)
    word, image = corrupted & canvas.is_text, corrupted & canvas.is_image
    partner = _next_in_document(word & (kind == 1), canvas.segment)
    swapped = word & (kind == 1) & (canvas.ids[partner] != canvas.ids)
    random = jax.random.randint(key_word, t.shape, *text_id_range)
    ids = jnp.where(word & (kind <= 1), random, canvas.ids)
    ids = jnp.where(swapped, canvas.ids[partner], ids)
    other_slots = _other_image_slots(key_shift, canvas)
    differs = jnp.any(canvas.latents[other_slots] != canvas.latents, axis=-1)
    differs = jnp.zeros(t.shape[0] + 1, bool).at[canvas.span].max(differs)[canvas.span]
    replaced = image & (kind == 0) & differs
    noisy = image & ((kind == 2) | ((kind == 0) & ~differs))
    return EditCorruption(
        ids=ids,
        latents=jnp.where(replaced[:, None], canvas.latents[other_slots], canvas.latents),
        substituted=(word & (ids != canvas.ids)) | replaced,
        deleted=(word & (kind == 2)) | (image & (kind == 1)),
        renoised=noisy,
        time=jnp.where(noisy, tasks.uniform_per_group(key_time, canvas.span), 1.0),
    )


def insert_spurious(
    key: Key[Array, ""],
    t: Float[Array, "L"],
    canvas: Canvas,
    anchors: Bool[Array, "L"],
    text_id_range: tuple[int, int],
) -> tuple[Canvas, Int[Array, "L"]]:
    """Insert spurious tokens into a row.

    Args:
        key: PRNG key.
        t: time of each slot's document.
        canvas: row whose slots are in reading order; missing items are PAD.
        anchors: True at the last slot of each item that a spurious token may follow.
        text_id_range: range of ids that spurious tokens are drawn from.

    Returns:
        The row with spurious tokens, and for each slot of a spurious token the slot that it
        follows; -1 for all other slots.
    """
    key_luck, key_word = jax.random.split(key)
    luck = jax.random.uniform(key_luck, t.shape)
    room = canvas.modality == Modality.PAD
    after = anchors & ~room & (luck < SPURIOUS_RATE * (1 - t))
    after &= jnp.cumsum(after) <= jnp.sum(room)
    # The n-th spurious token takes the n-th empty slot.
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
        modality=jnp.where(extra, int(Modality.TEXT), canvas.modality),
        segment=jnp.where(extra, canvas.segment[source], canvas.segment),
        # These numbers are unique: the spans of a clean row have numbers up to slots.size - 1.
        span=jnp.where(extra, slots.size + slots, canvas.span),
        position=jnp.where(extra[:, None], 0, canvas.position).at[:, 0].set(order),
    )
    return grown, jnp.where(extra, source, -1)


def _next_in_document(selected: Bool[Array, "L"], segment: Int[Array, "L"]) -> Int[Array, "L"]:
    """Return each slot's next selected slot in its document; after the last one, the first one."""
    length = selected.shape[0]
    at = jnp.where(selected, jnp.arange(length), length)
    first = jnp.full(length + 1, length).at[segment].min(at)[segment]
    upcoming = jnp.append(jax.lax.cummin(at, reverse=True)[1:], length)
    inside = (upcoming < length) & (segment[jnp.minimum(upcoming, length - 1)] == segment)
    return jnp.minimum(jnp.where(inside, upcoming, first), length - 1)


def _other_image_slots(key: Key[Array, ""], canvas: Canvas) -> Int[Array, "L"]:
    """Return for each patch the slot of the corresponding patch in another image of the row.

    If the row has only one image, the result is the patch's own slot. All images must have the same
    number of patches.
    """
    slots = jnp.arange(canvas.modality.shape[0])
    first = canvas.is_image & deletion.item_starts(canvas)
    count = jnp.sum(first)
    number = jnp.maximum(jnp.cumsum(first) - 1, 0)
    start = jnp.zeros_like(slots).at[jnp.where(first, number, slots.size)].set(slots, mode="drop")
    shift = jax.random.randint(key, (), 1, jnp.maximum(count, 2))
    other_slots = start[(number + shift) % jnp.maximum(count, 1)] + slots - start[number]
    return jnp.where(canvas.is_image, other_slots, slots)
