"""Orbax checkpoints of the training state, the data iterator and the EMA parameters.

    <workdir>/checkpoints/<step>/ema      EMA parameters: all that sampling needs
    <workdir>/checkpoints/<step>/train    step, root key, parameters and optimizer state
    <workdir>/checkpoints/<step>/data     position of each stream of the input pipeline, as JSON

Saving is asynchronous. A step's folder is renamed to its final name once it is complete, so a
killed save leaves no partial checkpoint. An object store cannot rename folders; there orbax writes
the file `commit_success.txt` last, and a folder without this file is ignored. The content of a
checkpoint does not depend on the number of processes that saved it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from oneflow_jax.data import streams
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, workdir
from oneflow_jax.shapes import PyTree
from oneflow_jax.training.train_state import TrainState

_MIN_SLICE_BYTES = 2**20
"""Replicas share the saving of an array if each gets this much; JAX compiles each slicing."""


class Checkpoints:
    """The checkpoints of one workdir. As a context manager, it waits for the last save."""

    def __init__(
        self, folder: epath.Path, max_to_keep: int | None = None, keep_period: int = 0
    ) -> None:
        """Open the checkpoints of a run; the folder need not exist yet.

        Args:
            folder: the run's folder.
            max_to_keep: number of newest checkpoints to keep. Older ones and the leftovers of
                killed saves are deleted. None deletes nothing: use it to read checkpoints while
                another process may be saving.
            keep_period: interval in steps at which checkpoints are kept permanently; 0 for none.
        """
        policies = ocp.training.preservation_policies
        kept = [policies.LatestN(max_to_keep)]
        if keep_period:
            kept.append(policies.EveryNSteps(keep_period))
        directory = folder / workdir.CHECKPOINTS
        # Orbax needs an absolute path. A gs:// path is absolute already, and absolute() would
        # corrupt it.
        self._directory = directory if directory.is_absolute() else directory.absolute()
        handlers = ocp.handlers.local_registry()
        handlers.add(ocp.handlers.JsonHandler, checkpointable_name="data")
        options = ocp.options.CheckpointablesOptions(registry=handlers)
        saving = ocp.options.ArrayOptions.Saving(
            min_slice_bytes_for_replica_parallel=_MIN_SLICE_BYTES
        )
        arrays = ocp.options.ArrayOptions(saving=saving)
        with ocp.Context(checkpointables_options=options, array_options=arrays):
            self._checkpointer = ocp.training.Checkpointer(
                self._directory,
                # Save at every call: the training loop decides when to save.
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=max_to_keep is not None,
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with self._translate_errors():
            self._checkpointer.close()

    @property
    def latest_step(self) -> int | None:
        """The newest step with a complete checkpoint, or None."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def save(self, state: TrainState, step: int, data: streams.BatchIterator) -> None:
        """Start an asynchronous save; arrays are copied before it returns, so they may be donated.

        Raises:
            UserError: this save or the previous one could not be written.
        """
        position = distributed.all_gather_json(data.state)
        items = {"ema": state.ema, "train": _without_ema(state), "data": position}
        with self._translate_errors():
            self._checkpointer.save_checkpointables_async(step, items)

    def wait(self) -> None:
        """Wait until all saves have finished.

        Raises:
            UserError: a checkpoint could not be written.
        """
        with self._translate_errors():
            self._checkpointer.wait()

    def restore(self, abstract_state: TrainState, data: streams.BatchIterator) -> TrainState:
        """Restore the newest training state and set `data` to its saved position.

        Args:
            abstract_state: shapes and shardings of the state.
            data: an iterator over the streams that were saved, or over a subset of them.

        Raises:
            UserError: an earlier version saved the checkpoint, without stream positions.
        """
        self._check_version()
        like_items = {
            "ema": abstract_state.ema,
            "train": _without_ema(abstract_state),
            "data": None,
        }
        items = self._checkpointer.load_checkpointables(self.latest_step, like_items)
        data.set_state(items["data"])
        return TrainState(ema=items["ema"], **items["train"])

    def restore_ema(self, abstract_params: PyTree) -> PyTree:
        """Restore the newest EMA parameters with the shapes and shardings of `abstract_params`.

        Raises:
            UserError: there is no checkpoint.
        """
        if self.latest_step is None:
            raise UserError(
                f"{self._directory}: there is no checkpoint. Train first, with --mode=train."
            )
        return self._checkpointer.load_checkpointables(self.latest_step, {"ema": abstract_params})[
            "ema"
        ]

    def _check_version(self) -> None:
        if any((self._directory / str(self.latest_step) / "data").glob("process_*.json")):
            raise UserError(
                f"{self._directory}: an earlier version saved these checkpoints with data "
                "positions in another format, and training cannot resume from them. Start a new "
                "run in another --workdir; with init_from=<this folder> it starts from their EMA "
                "parameters. Evaluation and sampling still work."
            )

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            # TensorStore reports a full disk as a ValueError.
            if isinstance(error, ValueError) and "os_error_code" not in str(error):
                raise
            raise UserError(
                f"{self._directory}: a checkpoint could not be written: {error}. Free some space "
                "or choose another --workdir. The checkpoints up to step "
                f"{self.latest_step} are complete, and the same command resumes from there."
            ) from error


def _without_ema(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in ("step", "key", "params", "opt_state")}
