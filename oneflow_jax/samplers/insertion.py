"""Tokens and pictures put into a row where there was a gap, all in one step; nothing moves.

New items take the next slots that were never used; their place in the text is their `position`. So
a slot is the same token or picture as long as it exists.
"""

import flax.struct
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, InsertPolicy, Modality
from oneflow_jax.flows import deletion
from oneflow_jax.shapes import Array, Bool, Float, Int

TIME_EPS = 1e-5
"""Sums of times in float32 miss 1 by less than this."""


@flax.struct.dataclass
class GrowingCanvas:
    """A row that things are put into.

    Attributes:
        canvas: as it stands; slots from `used` on are PAD.
        birth: time of the run at which each picture slot's own clock started.
        used: slots in use, from the first.
        full: something was refused because there was no room for all of it.
    """

    canvas: Canvas
    birth: Float[Array, "*b L"]
    used: Int[Array, "*b"]
    full: Bool[Array, "*b"]

    def clock(self, tau: Float[Array, ""]) -> Float[Array, "*b L"]:
        """The time of each slot at time τ of the run: of free pictures since birth, else 1."""
        age = tau - self.birth
        age = jnp.where(age > 1 - TIME_EPS, 1.0, jnp.maximum(age, 0.0))
        return jnp.where(self.canvas.free & self.canvas.is_image, age, 1.0)


def from_prompt(canvas: Canvas, noise: Float[Array, "L C"]) -> GrowingCanvas:
    """A prompt at τ=0, its free pictures turned to noise."""
    free = canvas.free & canvas.is_image
    latents = jnp.where(free[:, None], noise, canvas.latents)
    return _init(canvas.replace(latents=latents), jnp.zeros(canvas.ids.shape))


def from_document(canvas: Canvas) -> GrowingCanvas:
    """A finished document, its pictures done, that anything may come into anywhere."""
    opening = jnp.where(
        deletion.item_ends(canvas), int(InsertPolicy.ANYTHING), int(InsertPolicy.CLOSED)
    )
    return _init(canvas.replace(opening=opening), jnp.full(canvas.ids.shape, -1.0))


def _init(canvas: Canvas, image_start_time: Float[Array, "L"]) -> GrowingCanvas:
    used = jnp.sum(canvas.kind != Modality.PAD)
    return GrowingCanvas(canvas=canvas, birth=image_start_time, used=used, full=jnp.zeros((), bool))


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
    """The row with one item put in right after each wanted slot.

    Where `ids` is `image_token_id` a picture is born, of pure noise; else the token comes in. What
    does not fit whole is left out, and told by `full`. A new item's gap is open like the one that
    it was put into.

    Args:
        row: one row.
        anchors: anchors: tokens, and last slots of pictures.
        ids: what to put in, for each slot.
        image_token_id: the id that stands for a picture.
        grid: rows and columns of a picture, in patches.
        noise: what each slot would hold at t=0.
        run_time: time of the run from which the newborn's clocks count.
    """
    canvas, patches = row.canvas, grid[0] * grid[1]
    is_picture = ids == image_token_id
    size = jnp.where(anchors, jnp.where(is_picture, patches, 1), 0)
    stop = row.used + jnp.cumsum(size)
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
        kind=jnp.where(
            new, jnp.where(picture, int(Modality.IMAGE), int(Modality.TEXT)), canvas.kind
        ),
        segment=jnp.where(new, canvas.segment[source], canvas.segment),
        # Unique: prompts number their spans below the number of slots.
        span=jnp.where(new, size.shape[0] + (stop - size)[source], canvas.span),
        position=jnp.where(new[:, None], spread, canvas.position.at[:, 0].set(order)),
        opening=jnp.where(
            new, jnp.where(last, canvas.opening[source], int(InsertPolicy.CLOSED)), canvas.opening
        ),
        fixed=canvas.fixed & ~new,
    )
    return GrowingCanvas(
        canvas=grown,
        birth=jnp.where(new, run_time, row.birth),
        used=row.used + jnp.sum(jnp.where(fits, size, 0)),
        full=row.full | jnp.any(anchors & ~fits),
    )


def _shift_orders(order: Int[Array, "L"], fits: Bool[Array, "L"]) -> Int[Array, "L"]:
    """Orders after the insertions: each item goes up by the insertions before it."""
    after = jnp.zeros_like(order).at[order].add(fits.astype(order.dtype))
    return order + (jnp.cumsum(after) - after)[order]


def _slot_sources(
    fits: Bool[Array, "L"], start: Int[Array, "L"], size: Int[Array, "L"], num_patches: int
) -> tuple[Int[Array, "L"], Int[Array, "L"]]:
    """For each slot that is taken now: after which slot its item comes, and which part it is.

    -1 where nothing is taken.
    """
    length = fits.shape[0]
    parts = jnp.arange(num_patches)[None]
    taken = fits[:, None] & (parts < size[:, None])
    slots = jnp.where(taken, start[:, None] + parts, length)
    which = jnp.broadcast_to(jnp.arange(length)[:, None], slots.shape)
    source = jnp.full(length, -1).at[slots].set(which, mode="drop")
    offset = jnp.zeros(length, int).at[slots].set(jnp.broadcast_to(parts, slots.shape), mode="drop")
    return source, offset
