"""Rows of a batch of prompts, on the devices."""

import dataclasses
from collections.abc import Sequence

import jax

from oneflow_jax.data import layout as layouts
from oneflow_jax.generation.system import GenerativeSystem
from oneflow_jax.runtime import padding, sharding
from oneflow_jax.shapes import PyTree


def padded_length(layout: layouts.Layout, rows: Sequence[layouts.RowFields]) -> int:
    """Return the number of slots of the rows of a batch, for which a program is compiled."""
    if layout.variable_length:
        return layout.length
    return padding.padded_length(
        max((len(row["modality"]) for row in rows), default=0), layout.length
    )


def place(
    system: GenerativeSystem,
    rows: Sequence[layouts.RowFields],
    batch: int,
    length: int,
    *by_row: PyTree,
) -> tuple[PyTree, ...]:
    """Return the canvas of a batch, and arrays that have one value per row, on the devices.

    Copies of the first row fill the batch; the caller drops their results.

    Args:
        system: the model's parts.
        rows: rows of prompts, at most `batch`.
        batch: number of rows, over all devices.
        length: number of slots of a row.
        *by_row: arrays with `batch` rows.
    """
    layout = dataclasses.replace(system.layout, length=length)
    canvas = layout.canvas([*rows, *[rows[0]] * (batch - len(rows))])
    where = sharding.row_sharding(system.mesh, sharding.SAMPLING_RULES)
    return jax.device_put((canvas, *by_row), where)
