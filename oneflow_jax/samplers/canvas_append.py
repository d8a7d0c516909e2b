"""Rows of slots that are written one after another: put at the end, cut out, picked.

Rows of a batch are of different lengths: `used` says how many slots of each are written.
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
    """The canvas with c slots of one kind after the used ones, in the chosen rows.

    Args:
        canvas: `[B L]`.
        num_used: slots of each row that are written.
        selected: which rows are written to.
        ids: tokens or codes.
        latents: `[B c C]`.
        kind: what all of them hold.
        given: which of them are given.
        position: order, row and column.
    """
    fields = {
        "ids": ids,
        "latents": latents,
        "kind": jnp.full_like(ids, int(kind)),
        "segment": jnp.ones_like(ids),
        # Unique to what is written together: numbers of slots, from 1.
        "span": jnp.broadcast_to(num_used[:, None] + 1, ids.shape),
        "fixed": given,
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
    """A field `[B L ...]` with `values` `[B c ...]` from `start` on, in the chosen rows."""
    rows, count = values.shape[:2]
    at = jnp.where(selected[:, None], start[:, None] + jnp.arange(count)[None], field.shape[1])
    return field.at[jnp.arange(rows)[:, None], at].set(values.astype(field.dtype), mode="drop")


def slice_rows(tree: PyTree, start: Int[Array, "B"], count: int) -> PyTree:
    """Of every leaf `[B L ...]` the `count` slots from each row's `start` on; beyond L zeros."""

    def one(x: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (0, count), *((0, 0),) * (x.ndim - 2)))
        return jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, count))(padded, start)

    return jax.tree.map(one, tree)


def keep_slots(canvas: Canvas, keep: Bool[Array, "B L"]) -> Canvas:
    """The canvas with all other slots empty."""
    return jax.tree.map(
        lambda x: jnp.where(keep.reshape(keep.shape + (1,) * (x.ndim - 2)), x, jnp.zeros_like(x)),
        canvas,
    )


def select_rows(selected: Bool[Array, "B"], on_true: PyTree, on_false: PyTree) -> PyTree:
    """Row by row, one tree's or the other's."""

    def row(x: Array, y: Array) -> Array:
        return jnp.where(selected.reshape(selected.shape + (1,) * (x.ndim - 1)), x, y)

    return jax.tree.map(row, on_true, on_false)


def gather_rows(x: Array, index: Int[Array, "B"]) -> Array:
    """Of each row the entry at its index."""
    return jax.vmap(lambda row, i: row[i])(x, index)


def image_positions(order: Int[Array, "B"], size: tuple[int, int]) -> Int[Array, "B N 3"]:
    """Positions of the slots of a picture of `size` rows and columns, at each row's order."""
    row, column = jnp.divmod(jnp.arange(size[0] * size[1]), size[1])
    shape = (order.shape[0], row.shape[0])
    parts = (order[:, None], row[None], column[None])
    return jnp.stack([jnp.broadcast_to(x, shape) for x in parts], axis=-1)
