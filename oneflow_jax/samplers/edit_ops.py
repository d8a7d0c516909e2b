"""Tokens and pictures of a row deleted or replaced where they are wrong, all in one step.

A deleted item's slots become empty and are not used again. A replaced word changes in its slot. A
replaced picture is made anew in its slots: it becomes pure noise, with a clock of its own.
"""

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas, InsertPolicy, Modality
from oneflow_jax.flows import deletion
from oneflow_jax.flows.edit_corruption import EditOp
from oneflow_jax.samplers.insertion import GrowingCanvas
from oneflow_jax.shapes import Array, Bool, Float, Int, Key


def sample_edit_ops(
    key: Key[Array, ""],
    logits: Float[Array, "L F"],
    step_fraction: Float[Array, ""],
    editable: Bool[Array, "L"],
    canvas: Canvas,
) -> Int[Array, "L"]:
    """The `Fate` of each slot in one step; a picture's is that of its last slot.

    Args:
        key: randomness.
        logits: what the network makes of each item.
        step_fraction: of what is wrong, how much is put right in this step: by (11), for one item.
        editable: True where something may change.
        canvas: one row.
    """
    # A picture too many is not among the mistakes of training.
    logits = logits.at[:, EditOp.DELETE].add(jnp.where(canvas.is_text, 0.0, -jnp.inf))
    chance = step_fraction * jax.nn.softmax(logits)
    luck = jax.random.uniform(key, editable.shape)
    delete, replace = chance[:, EditOp.DELETE], chance[:, EditOp.REPLACE]
    fate = jnp.where(luck < delete, int(EditOp.DELETE), int(EditOp.KEEP))
    fate = jnp.where((luck >= delete) & (luck < delete + replace), int(EditOp.REPLACE), fate)
    # The last slot of each item, seen from all of them.
    slots = jnp.arange(editable.shape[0])
    last = jnp.where(deletion.item_ends(canvas), slots, slots.size - 1)
    item = jax.lax.cummin(last, reverse=True)
    return jnp.where(editable, fate[item], int(EditOp.KEEP))


def apply_edit_ops(
    row: GrowingCanvas,
    edit_ops: Int[Array, "L"],
    ids: Int[Array, "L"],
    *,
    noise: Float[Array, "L C"],
    run_time: Float[Array, ""],
) -> GrowingCanvas:
    """The row after its items met their fate.

    Args:
        row: one row.
        edit_ops: of each slot; the same for all of a picture's.
        ids: what replaces a word, for each slot.
        noise: what each slot would hold at t=0.
        run_time: time of the run from which the clocks of pictures that are made anew count.
    """
    canvas = row.canvas
    gone = edit_ops == EditOp.DELETE
    word = (edit_ops == EditOp.REPLACE) & canvas.is_text
    anew = (edit_ops == EditOp.REPLACE) & canvas.is_image
    kept = (canvas.kind != Modality.PAD) & ~gone
    # Orders are counted anew: all slots of a picture bear one.
    taken = jnp.zeros_like(canvas.ids).at[canvas.position[:, 0]].max(kept.astype(canvas.ids.dtype))
    order = jnp.where(kept, (jnp.cumsum(taken) - taken)[canvas.position[:, 0]], 0)
    return row.replace(
        canvas=canvas.replace(
            ids=jnp.where(word, ids, canvas.ids),
            latents=jnp.where(anew[:, None], noise, canvas.latents),
            kind=jnp.where(gone, int(Modality.PAD), canvas.kind),
            segment=jnp.where(gone, 0, canvas.segment),
            position=canvas.position.at[:, 0].set(order),
            opening=jnp.where(gone, int(InsertPolicy.CLOSED), canvas.opening),
        ),
        birth=jnp.where(anew, run_time, row.birth),
    )
