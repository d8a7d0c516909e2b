"""Losses of the flow map, for a run with `paradigm.flow_map`.

Every second row trains the x1 prediction as usual. The other rows train the flow map: the network
learns for a whole interval what its EMA predicts in two calls, for the first and the second half
(`flows.flow_map`, equation 3). The loss of these rows has the terms `text_map` and `image_map`.
"""

import functools
from typing import Protocol

import jax
from einops import rearrange

from oneflow_jax.canvas import Canvas, EmbeddingTable, NoisyCanvas
from oneflow_jax.flows.training_objective import TrainingObjective
from oneflow_jax.nn.model import Model
from oneflow_jax.shapes import Array, Float, Key, Outputs, PyTree
from oneflow_jax.training import step
from oneflow_jax.training.update import Metrics

ROWS_PER_MAP_ROW = 2
"""One row of this number trains the flow map."""

FLOPS_FACTOR = 1 + 2 / (3 * ROWS_PER_MAP_ROW)
"""FLOPs of a step relative to a step without flow map: two forward passes more for such a row, on
top of the three of a training step (a backward pass counts as two)."""


class FlowMapObjective(TrainingObjective, Protocol):
    """A training objective that also defines a loss of the flow map. All methods work on a row."""

    def start_interval(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, PyTree]:
        """Sample an interval, and corrupt a row to its start.

        Returns:
            The network's input for the first half of the interval, and the row's interval.
        """

    def advance(
        self, outputs: Outputs, interval: PyTree, canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, NoisyCanvas]:
        """Return the inputs for the second half, from its middle, and for the whole interval."""

    def map_loss(
        self,
        outputs: Outputs,
        halves: tuple[Outputs, Outputs],
        interval: PyTree,
        middle: NoisyCanvas,
    ) -> Metrics:
        """Return the loss terms of one row.

        Args:
            outputs: trained outputs for the whole interval.
            halves: outputs of the EMA for the first and the second half.
            interval: the row's interval.
            middle: input for the second half.
        """


def per_row_losses(
    params: PyTree,
    ema: PyTree,
    keys: Key[Array, "B"],
    u: Float[Array, "B L"],
    canvas: Canvas,
    *,
    model: Model,
    paradigm: FlowMapObjective,
) -> Metrics:
    """Return the losses of each row by term: denoising for even rows, the flow map for odd rows.

    Args:
        params: parameters to train.
        ema: parameters that predict the halves of an interval; they get no gradient.
        keys: key of each row; B is a multiple of `ROWS_PER_MAP_ROW`.
        u: uniform number in [0, 1) of each slot's document.
        canvas: the clean rows.
        model: the model, with a flow map.
        paradigm: the paradigm that defines both losses.
    """
    # Even and odd rows, not halves of the batch: a device holds consecutive rows, so each part has
    # rows on every device.
    split = jax.tree.map(
        lambda x: rearrange(x, "(m g) ... -> g m ...", g=ROWS_PER_MAP_ROW), (keys, u, canvas)
    )
    denoised, mapped = (jax.tree.map(lambda x, n=n: x[n], split) for n in range(ROWS_PER_MAP_ROW))
    return step.per_row_losses(params, *denoised, model=model, paradigm=paradigm) | map_losses(
        params, ema, *mapped, model=model, paradigm=paradigm
    )


def map_losses(
    params: PyTree,
    ema: PyTree,
    keys: Key[Array, "B"],
    u: Float[Array, "B L"],
    canvas: Canvas,
    *,
    model: Model,
    paradigm: FlowMapObjective,
) -> Metrics:
    """Return the losses of the flow map of each row, `[B]`, by term."""
    ema = jax.lax.stop_gradient(ema)
    table = model.apply({"params": ema}, method="embedding_table")
    start = jax.vmap(functools.partial(paradigm.start_interval, table=table))
    advance = jax.vmap(functools.partial(paradigm.advance, table=table))
    view, interval = start(keys, u, canvas)
    first = model.apply({"params": ema}, view)
    middle, whole = advance(first, interval, canvas)
    second = model.apply({"params": ema}, middle)
    outputs = model.apply({"params": params}, whole)
    return jax.vmap(paradigm.map_loss)(outputs, (first, second), interval, middle)
