"""Deletion and substitution of wrong tokens and images in a row, all in one step.

The slots of a deleted item become PAD and are not used again. A substituted token changes in its
slot. A substituted image is generated again in its slots: it becomes pure noise at t = 0, and its
time starts at the current global time.
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
    """Sample the `EditOp` of each slot in one step; an image has the operation of its last slot.

    Args:
        key: PRNG key.
        logits: logits over `EditOp` of each slot.
        step_fraction: probability that a wrong item is corrected in this step: (11) for one item.
        editable: True for slots that may change.
        canvas: one row.
    """
    # Images are never deleted: training has no spurious images.
    logits = logits.at[:, EditOp.DELETE].add(jnp.where(canvas.is_text, 0.0, -jnp.inf))
    chance = step_fraction * jax.nn.softmax(logits)
    luck = jax.random.uniform(key, editable.shape)
    delete, replace = chance[:, EditOp.DELETE], chance[:, EditOp.SUBSTITUTE]
    fate = jnp.where(luck < delete, int(EditOp.DELETE), int(EditOp.KEEP))
    fate = jnp.where((luck >= delete) & (luck < delete + replace), int(EditOp.SUBSTITUTE), fate)
    # For each slot, the last slot of its item.
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
    """Apply the edit operations to a row.

    Args:
        row: one row.
        edit_ops: `EditOp` of each slot; equal for all slots of an image.
        ids: token that each slot gets if its operation is SUBSTITUTE.
        noise: noise that each slot has at t = 0.
        run_time: global time at which the time of substituted images starts.
    """
    canvas = row.canvas
    gone = edit_ops == EditOp.DELETE
    word = (edit_ops == EditOp.SUBSTITUTE) & canvas.is_text
    anew = (edit_ops == EditOp.SUBSTITUTE) & canvas.is_image
    kept = (canvas.modality != Modality.PAD) & ~gone
    # Renumber the reading order; all slots of an image have the same number.
    taken = jnp.zeros_like(canvas.ids).at[canvas.position[:, 0]].max(kept.astype(canvas.ids.dtype))
    order = jnp.where(kept, (jnp.cumsum(taken) - taken)[canvas.position[:, 0]], 0)
    return row.replace(
        canvas=canvas.replace(
            ids=jnp.where(word, ids, canvas.ids),
            latents=jnp.where(anew[:, None], noise, canvas.latents),
            modality=jnp.where(gone, int(Modality.PAD), canvas.modality),
            segment=jnp.where(gone, 0, canvas.segment),
            position=canvas.position.at[:, 0].set(order),
            insertable=jnp.where(gone, int(InsertPolicy.NONE), canvas.insertable),
        ),
        image_start_time=jnp.where(anew, run_time, row.image_start_time),
    )
