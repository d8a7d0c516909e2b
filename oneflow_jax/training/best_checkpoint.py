"""The checkpoint with the lowest held-out loss: which one it is, and that it is kept.

The loss of a checkpoint is in its item `loss`. Orbax could store it as a metric, but then a damaged
file would make all checkpoints of the run unreadable. Here, a damaged file counts as no loss.
"""

import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from oneflow_jax.errors import UserError

ITEM = "loss"
"""Name of the item with the held-out loss, a JSON file."""

_KEY = "heldout_loss"


class HeldoutLosses:
    """The held-out losses of the checkpoints of a run; also a preservation policy of orbax."""

    def __init__(self, directory: epath.Path) -> None:
        """Read losses from the checkpoints in `directory`, when they are needed."""
        self._directory = directory
        self._losses: dict[int, float | None] = {}

    def make_item(self, step: int, loss: float | None) -> dict[str, dict[str, float]]:
        """Return the item to save with the checkpoint of a step; {} if there is no loss."""
        self._losses[step] = loss
        return {} if loss is None else {ITEM: {_KEY: loss}}

    def load(self, step: int) -> float | None:
        """Return the loss of a checkpoint; None if it has none, or if its file is damaged."""
        if step not in self._losses:
            try:
                text = (self._directory / str(step) / ITEM / "data.json").read_text()
                self._losses[step] = float(json.loads(text)[_KEY])
            except (OSError, ValueError, TypeError, KeyError):
                self._losses[step] = None
        return self._losses[step]

    def order(self, steps: Sequence[int]) -> list[int]:
        """Return the steps whose checkpoints have a loss, the lowest loss first.

        Raises:
            UserError: none has a loss.
        """
        losses = {step: loss for step in steps if (loss := self.load(step)) is not None}
        if not losses:
            raise UserError(
                f"checkpoint.use='best': no checkpoint in {self._directory} has a held-out loss. "
                "Give 'newest'. A checkpoint has a loss if its step is a multiple of "
                "evaluation.every, and a version of this project with best checkpoints saved it.",
                in_all_processes=True,
            )
        return sorted(losses, key=losses.__getitem__)

    def should_preserve(
        self,
        checkpoints: Sequence[Any],
        *,
        context: Any,  # noqa: ANN401 - a type that orbax does not export
    ) -> list[bool]:
        """Return for each checkpoint whether it is the best one, or the first of several."""
        del context
        losses = [self.load(checkpoint.step) for checkpoint in checkpoints]
        known = [loss for loss in losses if loss is not None]
        best = losses.index(min(known)) if known else None
        return [index == best for index in range(len(losses))]
