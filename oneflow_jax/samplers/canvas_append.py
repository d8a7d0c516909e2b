"""Operations on canvases that are written from left to right: append, slice and select.

The rows of a batch have different lengths; `num_used` is the number of slots written in each row.
"""

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.shapes import Array, Bool, Int, PyTree


def append(
    canvas: Canvas,
    num_used: Int[Array, "B"],
    selected: Bool[Array, "B"],
    *,
    ids: Int[Array, "B c"],
    latents: Array,
    kind: Modality,
    given: Bool[Array, "B c"],
    position: Int[Array, "B c 3"],
) -> Canvas:
    """Append c slots of one modality to the selected rows.

    Args:
        canvas: canvas with the axes `[B L]`.
        num_used: number of written slots of each row.
        selected: True for rows to append to.
        ids: text tokens or image tokens.
        latents: patches `[B c C]`.
        kind: modality of all new slots.
        given: True for new slots that are given.
        position: order, row and column of the new slots.
    """
    fields = {
        "ids": ids,
        "latents": latents,
        "modality": jnp.full_like(ids, int(kind)),
        "segment": jnp.ones_like(ids),
        # Slots that are appended together form one span, whose number is 1 + its first slot.
        "span": jnp.broadcast_to(num_used[:, None] + 1, ids.shape),
        "is_given": given,
        "position": position,
    }
    return canvas.replace(
        **{
            name: write_slots(getattr(canvas, name), num_used, selected, x)
            for name, x in fields.items()
        }
    )


def write_slots(
    field: Array, start: Int[Array, "B"], selected: Bool[Array, "B"], values: Array
) -> Array:
    """Write `values` `[B c ...]` to a field `[B L ...]` at slot `start`, in the selected rows."""
    rows, count = values.shape[:2]
    at = jnp.where(selected[:, None], start[:, None] + jnp.arange(count)[None], field.shape[1])
    return field.at[jnp.arange(rows)[:, None], at].set(values.astype(field.dtype), mode="drop")


def slice_rows(tree: PyTree, start: Int[Array, "B"], count: int) -> PyTree:
    """Return `count` slots of each row, from slot `start`, in every leaf `[B L ...]`.

    Slots beyond L are zero.
    """

    def one(x: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (0, count), *((0, 0),) * (x.ndim - 2)))
        return jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, count))(padded, start)

    return jax.tree.map(one, tree)


def keep_slots(canvas: Canvas, keep: Bool[Array, "B L"]) -> Canvas:
    """Set all slots where `keep` is False to zero, which makes them PAD."""
    return jax.tree.map(
        lambda x: jnp.where(keep.reshape(keep.shape + (1,) * (x.ndim - 2)), x, jnp.zeros_like(x)),
        canvas,
    )


def select_rows(selected: Bool[Array, "B"], on_true: PyTree, on_false: PyTree) -> PyTree:
    """Return the rows of `on_true` where `selected` is True, and of `on_false` elsewhere."""

    def row(x: Array, y: Array) -> Array:
        return jnp.where(selected.reshape(selected.shape + (1,) * (x.ndim - 1)), x, y)

    return jax.tree.map(row, on_true, on_false)


def gather_rows(x: Array, index: Int[Array, "B"]) -> Array:
    """Return the entry at `index` of each row."""
    return jax.vmap(lambda row, i: row[i])(x, index)


def image_positions(order: Int[Array, "B"], size: tuple[int, int]) -> Int[Array, "B N 3"]:
    """Return the positions of the slots of an image of `size` rows and columns."""
    row, column = jnp.divmod(jnp.arange(size[0] * size[1]), size[1])
    shape = (order.shape[0], row.shape[0])
    parts = (order[:, None], row[None], column[None])
    return jnp.stack([jnp.broadcast_to(x, shape) for x in parts], axis=-1)
