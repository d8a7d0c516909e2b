"""Deletion and substitution of wrong tokens and images: one sampling step of one row.

The slots of a deleted item become PAD and are not used again. A substituted token is replaced in
its slot. A substituted image keeps its slots and is generated again from pure noise, with its own
time t counted from the current global time.
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
    """Sample the `EditOp` of each slot for one step; an image gets the operation of its last slot.

    Args:
        key: PRNG key.
        logits: logits over `EditOp` of each slot.
        step_fraction: probability that a wrong item is corrected in this step: (11) with λ = 1.
        editable: True for slots that may be deleted or substituted.
        canvas: one row.
    """
    # Images are never deleted: training has no spurious images.
    logits = logits.at[:, EditOp.DELETE].add(jnp.where(canvas.is_text, 0.0, -jnp.inf))
    chance = step_fraction * jax.nn.softmax(logits)
    luck = jax.random.uniform(key, editable.shape)
    delete, replace = chance[:, EditOp.DELETE], chance[:, EditOp.SUBSTITUTE]
    edit_op = jnp.where(luck < delete, int(EditOp.DELETE), int(EditOp.KEEP))
    edit_op = jnp.where(
        (luck >= delete) & (luck < delete + replace), int(EditOp.SUBSTITUTE), edit_op
    )
    # Find for each slot the last slot of its item.
    slots = jnp.arange(editable.shape[0])
    last = jnp.where(deletion.item_ends(canvas), slots, slots.size - 1)
    item = jax.lax.cummin(last, reverse=True)
    return jnp.where(editable, edit_op[item], int(EditOp.KEEP))


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
    deleted = edit_ops == EditOp.DELETE
    is_substituted_text = (edit_ops == EditOp.SUBSTITUTE) & canvas.is_text
    regenerated = (edit_ops == EditOp.SUBSTITUTE) & canvas.is_image
    remains = (canvas.modality != Modality.PAD) & ~deleted
    # Renumber the reading order; all slots of an image have the same number.
    taken = (
        jnp.zeros_like(canvas.ids).at[canvas.position[:, 0]].max(remains.astype(canvas.ids.dtype))
    )
    order = jnp.where(remains, (jnp.cumsum(taken) - taken)[canvas.position[:, 0]], 0)
    return row.replace(
        canvas=canvas.replace(
            ids=jnp.where(is_substituted_text, ids, canvas.ids),
            latents=jnp.where(regenerated[:, None], noise, canvas.latents),
            modality=jnp.where(deleted, int(Modality.PAD), canvas.modality),
            segment=jnp.where(deleted, 0, canvas.segment),
            position=canvas.position.at[:, 0].set(order),
            insertable=jnp.where(deleted, int(InsertPolicy.NONE), canvas.insertable),
        ),
        image_start_time=jnp.where(regenerated, run_time, row.image_start_time),
    )
