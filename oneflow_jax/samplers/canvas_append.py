"""Rows of slots that are written one after another: put at the end, cut out, picked.

Rows of a batch are of different lengths: `used` says how many slots of each are written.
"""

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, Kind
from oneflow_jax.shapes import Array, Bool, Int, PyTree


def appended(
    canvas: Canvas,
    used: Int[Array, "B"],
    chosen: Bool[Array, "B"],
    *,
    ids: Int[Array, "B c"],
    latents: Array,
    kind: Kind,
    fixed: Bool[Array, "B c"],
    position: Int[Array, "B c 3"],
) -> Canvas:
    """The canvas with c slots of one kind after the used ones, in the chosen rows.

    Args:
        canvas: `[B L]`.
        used: slots of each row that are written.
        chosen: which rows are written to.
        ids: tokens or codes.
        latents: `[B c C]`.
        kind: what all of them hold.
        fixed: which of them are given.
        position: order, row and column.
    """
    fields = {
        "ids": ids,
        "latents": latents,
        "kind": jnp.full_like(ids, int(kind)),
        "segment": jnp.ones_like(ids),
        # Unique to what is written together: numbers of slots, from 1.
        "span": jnp.broadcast_to(used[:, None] + 1, ids.shape),
        "fixed": fixed,
        "position": position,
    }
    return canvas.replace(
        **{name: put(getattr(canvas, name), used, chosen, x) for name, x in fields.items()}
    )


def put(field: Array, used: Int[Array, "B"], chosen: Bool[Array, "B"], values: Array) -> Array:
    """A field `[B L ...]` with `values` `[B c ...]` from `used` on, in the chosen rows."""
    rows, count = values.shape[:2]
    at = jnp.where(chosen[:, None], used[:, None] + jnp.arange(count)[None], field.shape[1])
    return field.at[jnp.arange(rows)[:, None], at].set(values.astype(field.dtype), mode="drop")


def cut(tree: PyTree, first: Int[Array, "B"], count: int) -> PyTree:
    """Of every leaf `[B L ...]` the `count` slots from each row's `first` on; beyond L zeros."""

    def one(x: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (0, count), *((0, 0),) * (x.ndim - 2)))
        return jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, count))(padded, first)

    return jax.tree.map(one, tree)


def masked(canvas: Canvas, kept: Bool[Array, "B L"]) -> Canvas:
    """The canvas with all other slots empty."""
    return jax.tree.map(
        lambda x: jnp.where(kept.reshape(kept.shape + (1,) * (x.ndim - 2)), x, jnp.zeros_like(x)),
        canvas,
    )


def pick(chosen: Bool[Array, "B"], one: PyTree, other: PyTree) -> PyTree:
    """Row by row, one tree's or the other's."""

    def row(x: Array, y: Array) -> Array:
        return jnp.where(chosen.reshape(chosen.shape + (1,) * (x.ndim - 1)), x, y)

    return jax.tree.map(row, one, other)


def at(x: Array, index: Int[Array, "B"]) -> Array:
    """Of each row the entry at its index."""
    return jax.vmap(lambda row, i: row[i])(x, index)


def grid(order: Int[Array, "B"], size: tuple[int, int]) -> Int[Array, "B N 3"]:
    """Positions of the slots of a picture of `size` rows and columns, at each row's order."""
    row, column = jnp.divmod(jnp.arange(size[0] * size[1]), size[1])
    shape = (order.shape[0], row.shape[0])
    parts = (order[:, None], row[None], column[None])
    return jnp.stack([jnp.broadcast_to(x, shape) for x in parts], axis=-1)
