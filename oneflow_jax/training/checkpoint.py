"""Checkpoints by orbax: the training state, the data iterator and the averaged parameters.

    <workdir>/checkpoints/<step>/ema      averaged parameters: all that sampling needs
    <workdir>/checkpoints/<step>/train    step, root key, parameters, optimizer
    <workdir>/checkpoints/<step>/data     where each stream of the input pipeline stands, as JSON

Saving goes on in the background; a step's folder gets its name when it is whole, so that a killed
save leaves no half checkpoint behind. In an object store, where no folder is renamed, a file
`commit_success.txt` comes last, and what has none does not count. Nothing in a checkpoint depends
on how many processes saved it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import ml_collections
from etils import epath
from orbax.checkpoint import v1 as ocp

from oneflow_jax.data import streams
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, workdir
from oneflow_jax.shapes import PyTree
from oneflow_jax.training.train_state import TrainState


def validate(section: ml_collections.ConfigDict) -> None:
    """Refuses to save never, and milestones at which nothing is saved.

    Raises:
        UserError: as said.
    """
    if section.every < 1:
        raise UserError(f"checkpoint.every={section.every} must be at least 1.")
    if section.milestones % section.every:
        raise UserError(
            f"checkpoint.milestones={section.milestones} must be a multiple of checkpoint.every="
            f"{section.every}, or 0 for none."
        )


class Checkpoints:
    """The checkpoints of one workdir; a context manager, which waits for the last save."""

    def __init__(self, folder: epath.Path, keep: int | None = None, milestones: int = 0) -> None:
        """Opens the folder, which need not exist.

        Args:
            folder: of the run.
            keep: all but so many newest are deleted, and what a killed save left; None deletes
                nothing, for whoever only reads: the run may be saving just now, elsewhere.
            milestones: but not those of every so many steps; 0 for none.
        """
        policies = ocp.training.preservation_policies
        kept = [policies.LatestN(keep)]
        if milestones:
            kept.append(policies.EveryNSteps(milestones))
        directory = folder / workdir.CHECKPOINTS
        # Orbax takes no relative path; and absolute() would garble gs://, which is one already.
        self._directory = directory if directory.is_absolute() else directory.absolute()
        handlers = ocp.handlers.local_registry()
        handlers.add(ocp.handlers.JsonHandler, checkpointable_name="data")
        options = ocp.options.CheckpointablesOptions(registry=handlers)
        with ocp.Context(checkpointables_options=options):
            self._checkpointer = ocp.training.Checkpointer(
                self._directory,
                # The training loop decides when.
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=keep is not None,
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with self._translate_errors():
            self._checkpointer.close()

    @property
    def latest(self) -> int | None:
        """The newest step that is saved whole, or None."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def save(self, state: TrainState, step: int, data: streams.BatchIterator) -> None:
        """Begins to save; arrays are copied before this returns, so that they may be donated.

        Raises:
            UserError: this save or the one before it could not be written.
        """
        position = distributed.all_gather_json(data.position)
        items = {"ema": state.ema, "train": _without_ema(state), "data": position}
        with self._translate_errors():
            self._checkpointer.save_checkpointables_async(step, items)

    def wait(self) -> None:
        """Returns when everything is written.

        Raises:
            UserError: it could not be written.
        """
        with self._translate_errors():
            self._checkpointer.wait()

    def restore(self, like: TrainState, data: streams.BatchIterator) -> TrainState:
        """The newest state, laid out as `like`; `data` is set to where it stood.

        Args:
            like: shapes and shardings of the state.
            data: a reader of the same streams, or of some of them, as the saved one.

        Raises:
            UserError: the checkpoint is of an earlier version, which kept no streams.
        """
        self._check_version()
        like_items = {"ema": like.ema, "train": _without_ema(like), "data": None}
        items = self._checkpointer.load_checkpointables(self.latest, like_items)
        data.seek(items["data"])
        return TrainState(ema=items["ema"], **items["train"])

    def restore_ema(self, like: PyTree) -> PyTree:
        """The newest averaged parameters, laid out as `like`.

        Raises:
            UserError: there is no checkpoint.
        """
        if self.latest is None:
            raise UserError(
                f"There is no checkpoint in {self._directory}: train first, with --mode=train."
            )
        return self._checkpointer.load_checkpointables(self.latest, {"ema": like})["ema"]

    def _check_version(self) -> None:
        if any((self._directory / str(self.latest) / "data").glob("process_*.json")):
            raise UserError(
                f"The checkpoints in {self._directory} were saved by an earlier version, which "
                "kept the place in the data otherwise, and training cannot go on from them: train "
                "anew in another --workdir, or with start=<this folder> to take over its averaged "
                "parameters. Evaluating and sampling still work."
            )

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            # TensorStore tells of a full disk by a ValueError.
            if isinstance(error, ValueError) and "os_error_code" not in str(error):
                raise
            raise UserError(
                f"A checkpoint could not be written to {self._directory}: {error}. Free some space "
                f"or choose another --workdir; what was saved before, up to step {self.latest}, is "
                "whole, and the same command goes on from there."
            ) from error


def _without_ema(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in ("step", "key", "params", "opt_state")}
