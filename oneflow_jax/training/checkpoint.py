"""Orbax checkpoints of the training state, the data iterator and the EMA parameters.

    <workdir>/checkpoints/<step>/ema        EMA parameters: all that sampling needs
    <workdir>/checkpoints/<step>/train      step, root key, parameters and optimizer state
    <workdir>/checkpoints/<step>/data       position of each stream of the input pipeline, as JSON
    <workdir>/checkpoints/<step>/checksums  checksums of the arrays (`checksums`), as JSON
    <workdir>/checkpoints/<step>/loss       held-out loss, as JSON, if it was measured at this step
    <workdir>/damaged_checkpoints/<step>    a damaged checkpoint that training has skipped

Saving is asynchronous. Orbax renames the folder of a step to its final name once the folder is
complete, so a killed save leaves no partial checkpoint. An object store cannot rename folders.
There orbax writes the file `commit_success.txt` last, and readers ignore folders without this file.
The number of processes that save a checkpoint does not change its content.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from oneflow_jax.data import streams
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, storage, workdir
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import best_checkpoint, checksums, old_parameters, replica_load
from oneflow_jax.training.train_state import TrainState

SKIP_DAMAGED = "checkpoint.skip_damaged"
"""Key of the configuration that makes the program skip damaged checkpoints."""

_MIN_SLICE_BYTES = 2**20
"""Replicas share the saving of an array only if each of them saves at least this number of bytes.

To share an array, JAX slices it with a program compiled for its shape. For small arrays, compiling
would take longer than saving.
"""


class Checkpoints:
    """The checkpoints of one run, as a context manager that waits for the last save on exit."""

    def __init__(
        self,
        folder: epath.Path,
        max_to_keep: int | None = None,
        keep_period: int = 0,
        *,
        keep_best: bool = False,
    ) -> None:
        """Open the checkpoints of a run; the folder need not exist yet.

        Args:
            folder: the run's folder.
            max_to_keep: number of newest checkpoints to keep. Older checkpoints and the leftovers
                of killed saves are deleted. None deletes nothing; use None to read checkpoints
                while another process may be saving.
            keep_period: interval in steps at which checkpoints are kept permanently; 0 for none.
            keep_best: whether to also keep the checkpoint with the lowest held-out loss.
        """
        directory = folder / workdir.CHECKPOINTS
        # Orbax needs an absolute path. A gs:// path is already absolute, and `absolute()` would
        # corrupt it.
        absolute = directory if directory.is_absolute() else directory.absolute()
        self._directory = storage.LiteralPath(absolute)
        storage.check_storable(self._directory, "--workdir")
        self._losses = best_checkpoint.HeldoutLosses(self._directory)
        policies = ocp.training.preservation_policies
        preservation = [policies.LatestN(max_to_keep)]
        if keep_period:
            preservation.append(policies.EveryNSteps(keep_period))
        if keep_best:
            preservation.append(self._losses)
        with _make_context():
            self._checkpointer = ocp.training.Checkpointer(
                self._directory,
                # Save at every call: the training loop decides when to save.
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy(preservation),
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

    def save(
        self,
        state: TrainState,
        step: int,
        data: streams.BatchIterator,
        heldout_loss: float | None = None,
    ) -> None:
        """Start an asynchronous save of the state and the position of `data`.

        The method copies the arrays before it returns, so the caller may donate them afterwards.

        Args:
            state: the training state.
            step: the step of the state.
            data: the iterator whose position is saved.
            heldout_loss: the held-out loss at this step; None if it was not measured. The best
                checkpoint is that with the lowest loss.

        Raises:
            UserError: parameters or EMA parameters are not finite; or this checkpoint or the
                previous one could not be written.
        """
        checksums.check_finite(
            {f"Step {step}: parameters": state.params, f"Step {step}: EMA": state.ema}
        )
        items = {"ema": state.ema, "train": _without_ema(state)}
        items |= {"checksums": _compute_checksums(items)}
        items |= {"data": distributed.all_gather_json(data.state)}
        items |= self._losses.make_item(step, heldout_loss)
        with self._translate_errors():
            self._checkpointer.save_checkpointables_async(step, items)

    def wait(self) -> None:
        """Wait until all saves have finished.

        Raises:
            UserError: a checkpoint could not be written.
        """
        with self._translate_errors():
            self._checkpointer.wait()

    def restore(
        self,
        abstract_state: TrainState,
        data: streams.BatchIterator,
        *,
        skip_damaged: bool = False,
        broadcast_min_gb: float = 0.0,
    ) -> TrainState:
        """Restore the newest training state and set `data` to its saved position.

        Args:
            abstract_state: shapes and shardings of the state.
            data: an iterator over the streams that were saved, or over a subset of them.
            skip_damaged: whether to move damaged checkpoints to another folder, and to restore the
                newest checkpoint that is not damaged.
            broadcast_min_gb: size of the state in GB from which one replica of the mesh reads it
                and sends it to the others (`replica_load`); 0 for never. With `skip_damaged`, all
                replicas read, because a process that finds damage then has to inform the others.

        Raises:
            UserError: there is no checkpoint; or the newest one is damaged (with `skip_damaged`,
                all are); or an earlier version of this project saved it, without stream positions.
        """
        like_items = {
            "ema": abstract_state.ema,
            "train": _without_ema(abstract_state),
            "data": None,
        }
        axis = None if skip_damaged else replica_load.choose_axis(abstract_state, broadcast_min_gb)
        items = self._load_first(
            like_items, skip_damaged=skip_damaged, set_aside=True, replica_axis=axis
        )
        data.set_state(items["data"])
        return TrainState(ema=items["ema"], **items["train"])

    def restore_ema(
        self, abstract_params: PyTree, *, skip_damaged: bool = False, use: str = "newest"
    ) -> PyTree:
        """Restore EMA parameters with the shapes and shardings of `abstract_params`.

        Nothing is written: with `skip_damaged`, damaged checkpoints stay where they are.

        Args:
            abstract_params: shapes, dtypes and shardings of the parameters.
            skip_damaged: whether to skip damaged checkpoints.
            use: "newest", or "best" for the checkpoint with the lowest held-out loss.

        Raises:
            UserError: the run has no checkpoint, the checkpoint is damaged, or `use` is "best" and
                no checkpoint has a held-out loss.
        """
        like_items = {"ema": abstract_params}
        return self._load_first(like_items, skip_damaged=skip_damaged, use=use)["ema"]

    def _load_first(
        self,
        like_items: dict[str, Any],
        *,
        skip_damaged: bool,
        set_aside: bool = False,
        use: str = "newest",
        replica_axis: int | None = None,
    ) -> dict[str, Any]:
        """Load the newest or the best checkpoint; with `skip_damaged`, the first undamaged one."""
        steps = self._list_common_steps()
        if steps and use == "best":
            steps = self._losses.order(steps)
        if not steps:
            raise UserError(
                f"{self._directory}: there is no checkpoint. Train first, with --mode=train.",
                in_all_processes=True,
            )
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if "data" in like_items:
                self._check_version(step)
            items, damage = self._try_load(step, like_items, replica_axis)
            if not damage:
                if use == "best":
                    logging.info("Checkpoint of step %d: its held-out loss is the lowest.", step)
                return items
            path = self._directory / str(step)
            if following is None:
                raise UserError(
                    f"{path}: the checkpoint is damaged ({damage}), and there is no older "
                    "checkpoint. Restore it from a backup, or train in another --workdir.",
                    in_all_processes=True,
                )
            if not skip_damaged:
                raise UserError(
                    f"{path}: the checkpoint is damaged ({damage}). Restore it from a backup, or "
                    f"continue from step {following} with --config.{SKIP_DAMAGED}=True.",
                    in_all_processes=True,
                )
            target = self._set_aside(path) if set_aside else path
            logging.warning(
                "The checkpoint of step %d is damaged (%s) and is skipped. Its folder is %s.",
                step,
                damage,
                target,
            )
        raise AssertionError("unreachable: the loop returns a checkpoint or raises")

    def _list_common_steps(self) -> list[int]:
        """List the steps of the checkpoints that all processes see, the newest first."""
        mine = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
        steps = distributed.all_gather_json({str(jax.process_index()): mine})
        return sorted(set.intersection(*map(set, steps.values())), reverse=True)

    def _try_load(
        self, step: int, like_items: dict[str, Any], replica_axis: int | None
    ) -> tuple[dict[str, Any], str]:
        """Load a checkpoint; return its items, and a description of its damage ("" for none).

        Raises:
            ValueError, KeyError: the checkpoint is not damaged, but has another model's parameters.
            UserError: with a replica axis, this process found damage.
        """
        has_checksums = (self._directory / str(step) / "checksums").exists()
        wanted = like_items | ({"checksums": None} if has_checksums else {})
        items: dict[str, Any] = {}
        damage = ""
        try:
            items = self._load(step, wanted, replica_axis)
        except Exception as error:
            if self._is_other_model(step, like_items["ema"]):
                raise
            damage = _describe(error)
            if replica_axis is not None:  # The others wait for this process, until it has ended.
                raise UserError(
                    f"{self._directory / str(step)}: the checkpoint is damaged ({damage}). Restore "
                    f"it from a backup, or continue from an older one with "
                    f"--config.{SKIP_DAMAGED}=True."
                ) from error
        # If any process finds damage, all processes must skip the checkpoint.
        distributed.barrier()
        damage_by_process = distributed.all_gather_json({str(jax.process_index()): damage})
        damage = next(filter(None, damage_by_process.values()), "")
        if not damage and has_checksums:  # All processes compute the checksums together.
            damage = _compare_checksums(items)
        return items, damage

    def _load(
        self, step: int, like_items: dict[str, Any], replica_axis: int | None
    ) -> dict[str, Any]:
        """Load the shards of this process, or the shards that its replica of the mesh reads.

        Orbax sees a single process. If the processes waited for each other in orbax, a process that
        finds damage would block the others.
        """
        index, path = jax.process_index(), self._directory / str(step)
        context = _make_context()
        context.multiprocessing.primary_host = index
        context.multiprocessing.active_processes = {index}
        context.multiprocessing.barrier_sync_key_prefix = f"load_{index}"
        if replica_axis is None:
            with context:
                return ocp.load_checkpointables(path, like_items)
        replica_load.set_options(context, replica_axis)
        with context:
            return replica_load.load(path, like_items)

    def _is_other_model(self, step: int, abstract_params: PyTree) -> bool:
        """Return whether a checkpoint's EMA parameters differ in names or shapes from the model.

        Raises:
            UserError: they are those of a text model with two towers.
        """
        try:
            saved = self._checkpointer.checkpointables_metadata(step).metadata["ema"]
            shapes = None if saved is None else _shapes(saved)
        except Exception:
            return False
        expected = _shapes(abstract_params)
        old_parameters.check_towers(self._directory / str(step), shapes or (), expected)
        return shapes is not None and shapes != expected

    def _set_aside(self, path: epath.Path) -> epath.Path:
        """Move a checkpoint to the folder of damaged checkpoints; return the new path."""
        target = self._directory.parent / workdir.DAMAGED_CHECKPOINTS / path.name
        while target.exists():
            target = target.with_name(target.name + "_")
        distributed.barrier()
        if distributed.is_primary():
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
        distributed.barrier()
        self._checkpointer.reload()
        return target

    def _check_version(self, step: int) -> None:
        positions = self._directory / str(step) / "data"
        if any(positions.glob("process_*.json")):
            raise UserError(
                f"{self._directory}: an earlier version saved these checkpoints with data "
                "positions in another format, and training cannot resume from them. Start a new "
                "run in another --workdir; with init_from=<folder of this run> it starts from the "
                "EMA parameters of this run. Evaluation and sampling still work."
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


def _make_context() -> ocp.Context:
    """Return orbax's context, with the options that hold for each use of the checkpoints."""
    handlers = ocp.handlers.local_registry()
    for name in ("data", "checksums", best_checkpoint.ITEM):
        handlers.add(ocp.handlers.JsonHandler, checkpointable_name=name)
    context = ocp.Context()
    context.checkpointables.registry = handlers
    context.array.saving.min_slice_bytes_for_replica_parallel = _MIN_SLICE_BYTES
    return context


def _without_ema(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in ("step", "key", "params", "opt_state")}


def _compute_checksums(items: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return the checksums of the parameters and of the optimizer's state."""
    arrays = {"ema": items.get("ema"), "train": items.get("train")}
    if arrays["train"] is not None:  # The PRNG key and the step have no checksum.
        arrays["train"] = {name: arrays["train"][name] for name in ("params", "opt_state")}
    return {name: checksums.compute(tree) for name, tree in arrays.items() if tree is not None}


def _compare_checksums(items: dict[str, Any]) -> str:
    """Describe the first array whose checksum differs from the saved checksum; else return ""."""
    for name, sums in _compute_checksums(items).items():
        for path, value in sums.items():
            if items["checksums"].get(name, {}).get(path) != value:
                return f"{name}: the array {path} has changed since it was saved"
    return ""


def _describe(error: BaseException) -> str:
    """Describe the cause of an error in one line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first[:200]}"


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }
