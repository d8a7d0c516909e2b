"""Insertion of tokens and images into the gaps of a row: one sampling step of one row.

New items take the next unused slots, and `position` gives their place in the reading order.
Existing items never move to another slot.
"""

import flax.struct
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, InsertPolicy, Modality
from oneflow_jax.flows import deletion
from oneflow_jax.shapes import Array, Bool, Float, Int

TIME_EPS = 1e-5
"""Tolerance for times that are sums in float32 and should equal 1."""


@flax.struct.dataclass
class GrowingCanvas:
    """A row that grows by insertion of tokens and images.

    Attributes:
        canvas: current content; slots from `num_used` on are PAD.
        image_start_time: global time at which each image slot had time 0.
        num_used: number of slots used so far, counted from the first slot.
        truncated: True if an insertion was dropped because the row had too few free slots.
    """

    canvas: Canvas
    image_start_time: Float[Array, "*b L"]
    num_used: Int[Array, "*b"]
    truncated: Bool[Array, "*b"]

    def slot_times(self, run_time: Float[Array, ""]) -> Float[Array, "*b L"]:
        """Return each slot's time at global time τ (`run_time`): 1 for text and given images."""
        age = run_time - self.image_start_time
        age = jnp.where(age > 1 - TIME_EPS, 1.0, jnp.maximum(age, 0.0))
        return jnp.where(self.canvas.to_generate & self.canvas.is_image, age, 1.0)


def from_prompt(canvas: Canvas, noise: Float[Array, "L C"]) -> GrowingCanvas:
    """Create a row from a prompt at τ = 0, with noise in the images to be generated."""
    free = canvas.to_generate & canvas.is_image
    latents = jnp.where(free[:, None], noise, canvas.latents)
    return _init(canvas.replace(latents=latents), jnp.zeros(canvas.ids.shape))


def from_document(canvas: Canvas) -> GrowingCanvas:
    """Create a row from a finished document, with clean images and a gap after every item."""
    opening = jnp.where(deletion.item_ends(canvas), int(InsertPolicy.ANY), int(InsertPolicy.NONE))
    return _init(canvas.replace(insertable=opening), jnp.full(canvas.ids.shape, -1.0))


def _init(canvas: Canvas, image_start_time: Float[Array, "L"]) -> GrowingCanvas:
    used = jnp.sum(canvas.modality != Modality.PAD)
    return GrowingCanvas(
        canvas=canvas,
        image_start_time=image_start_time,
        num_used=used,
        truncated=jnp.zeros((), bool),
    )


def insert(
    row: GrowingCanvas,
    anchors: Bool[Array, "L"],
    ids: Int[Array, "L"],
    *,
    image_token_id: int,
    grid: tuple[int, int],
    noise: Float[Array, "L C"],
    run_time: Float[Array, ""],
) -> GrowingCanvas:
    """Insert one item right after each anchor.

    The item is an image of pure noise where `ids` is `image_token_id`, and a token otherwise. An
    item for which too few slots are free is dropped, and `truncated` becomes True. The gap after a
    new item has the same `InsertPolicy` as the gap that the item was inserted into.

    Args:
        row: one row.
        anchors: True for slots to insert after: tokens and last slots of images.
        ids: token to insert after each anchor.
        image_token_id: id that inserts an image.
        grid: rows and columns of an image, in patches.
        noise: noise that each slot has at t = 0.
        run_time: global time at which new images have time 0.
    """
    canvas, patches = row.canvas, grid[0] * grid[1]
    is_picture = ids == image_token_id
    size = jnp.where(anchors, jnp.where(is_picture, patches, 1), 0)
    stop = row.num_used + jnp.cumsum(size)
    fits = anchors & (stop <= size.shape[0])
    shifted = _shift_orders(canvas.position[:, 0], fits)
    source, offset = _slot_sources(fits, stop - size, size, patches)
    new = source >= 0
    picture = new & is_picture[source]
    last = ~picture | (offset == patches - 1)
    order = jnp.where(new, shifted[source] + 1, shifted)
    spread = jnp.stack([order, offset // grid[1], offset % grid[1]], axis=-1)
    grown = canvas.replace(
        ids=jnp.where(new, jnp.where(picture, 0, ids[source]), canvas.ids),
        latents=jnp.where(picture[:, None], noise, canvas.latents),
        modality=jnp.where(
            new, jnp.where(picture, int(Modality.IMAGE), int(Modality.TEXT)), canvas.modality
        ),
        segment=jnp.where(new, canvas.segment[source], canvas.segment),
        # Number new spans from L on, the number of slots: spans of the prompt have lower numbers.
        span=jnp.where(new, size.shape[0] + (stop - size)[source], canvas.span),
        position=jnp.where(new[:, None], spread, canvas.position.at[:, 0].set(order)),
        insertable=jnp.where(
            new,
            jnp.where(last, canvas.insertable[source], int(InsertPolicy.NONE)),
            canvas.insertable,
        ),
        is_given=canvas.is_given & ~new,
    )
    return GrowingCanvas(
        canvas=grown,
        image_start_time=jnp.where(new, run_time, row.image_start_time),
        num_used=row.num_used + jnp.sum(jnp.where(fits, size, 0)),
        truncated=row.truncated | jnp.any(anchors & ~fits),
    )


def _shift_orders(order: Int[Array, "L"], fits: Bool[Array, "L"]) -> Int[Array, "L"]:
    """Increase the order of each item by the number of insertions before it."""
    after = jnp.zeros_like(order).at[order].add(fits.astype(order.dtype))
    return order + (jnp.cumsum(after) - after)[order]


def _slot_sources(
    fits: Bool[Array, "L"], start: Int[Array, "L"], size: Int[Array, "L"], num_patches: int
) -> tuple[Int[Array, "L"], Int[Array, "L"]]:
    """Return, for each slot of a new item, the item's anchor and the slot's index in the item.

    The anchor is -1 for slots without a new item.
    """
    length = fits.shape[0]
    parts = jnp.arange(num_patches)[None]
    taken = fits[:, None] & (parts < size[:, None])
    slots = jnp.where(taken, start[:, None] + parts, length)
    which = jnp.broadcast_to(jnp.arange(length)[:, None], slots.shape)
    source = jnp.full(length, -1).at[slots].set(which, mode="drop")
    offset = jnp.zeros(length, int).at[slots].set(jnp.broadcast_to(parts, slots.shape), mode="drop")
    return source, offset
