"""The training loop, which restores, trains, logs, evaluates and saves any `System`."""

import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

import jax
from clu import parameter_overview
from etils import epath

from oneflow_jax.data import streams
from oneflow_jax.runtime import preemption, sharding, storage
from oneflow_jax.shapes import Key, PyTree
from oneflow_jax.training import (
    checkpoint,
    eval_loss,
    optimizer,
    profiler,
    reporter,
    save_schedule,
    train_state,
)
from oneflow_jax.training.loop_config import LoopConfig
from oneflow_jax.training.train_state import TrainState
from oneflow_jax.training.update import Metrics

DocumentLossFn = Callable[[PyTree], tuple[dict[str, float], dict[str, list[float]]]]
"""Function from EMA parameters to scalars by name, and to the loss of each document by name."""


class System(Protocol):
    """The interface through which the training loop uses a model, its data and its optimizer.

    Attributes:
        loop_config: number of steps, and intervals of logging, saving and evaluation.
        mesh: the device mesh.
        batch_sharding: sharding of training batches.
        optimizer_config: settings of the optimizer.
        throughput_keys: names of metrics of `train_step`, the most important first. The reporter
            converts these metrics to rates per second.
    """

    loop_config: LoopConfig
    mesh: jax.sharding.Mesh
    batch_sharding: jax.sharding.Sharding
    optimizer_config: optimizer.OptimizerConfig
    throughput_keys: tuple[str, ...]

    @property
    def flops(self) -> float:
        """FLOPs of the matrix products of one step, or 0 if they are unknown."""

    @property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the training state, without its values."""

    def init_state(self, key: Key) -> TrainState:
        """Return the initial state, possibly boxed in linen's partitioning metadata."""

    def initialize_from(self, state: TrainState) -> TrainState:
        """Return the state, with the parameters of the run in `config.init_from` if it is set."""

    def merge_params(self, params: PyTree) -> PyTree:
        """Return the parameters of the model for the trained parameters, as LoRA's factors."""

    def train_batches(self) -> streams.BatchStreams:
        """Return the endless stream of training batches, as arrays on the devices."""

    def train_step(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """Return the state after one step, and the metrics to log."""

    def eval_losses(self) -> Callable[[PyTree], dict[str, float]]:
        """Return a function that maps EMA parameters to held-out losses by name."""

    def document_losses(self) -> DocumentLossFn | None:
        """Return a function that maps EMA parameters to losses of single documents, or None."""


def run(
    system: System, folder: epath.Path, preview: Callable[[int, PyTree], None] | None = None
) -> None:
    """Train to the last step, resuming from the newest checkpoint in `folder` if one exists.

    Args:
        system: the system to train.
        folder: the run's folder.
        preview: function of step and EMA parameters that writes samples. The loop calls it every
            `sampling.preview_every` steps.

    Raises:
        UserError: the loss is not finite, a checkpoint cannot be written, or another training
            process has taken over the folder.
        Preempted: the process received SIGTERM or Ctrl-C; the state is saved.
    """
    settings = system.loop_config
    owner = storage.TrainingLease(folder)
    with (
        sharding.mesh_context(system.mesh),
        contextlib.closing(iter(system.train_batches())) as data,
        checkpoint.Checkpoints(
            folder, settings.max_to_keep, settings.keep_period, keep_best=settings.keep_best
        ) as checkpoints,
        preemption.stop_handler() as stop,
    ):
        state = restore_or_init(system, checkpoints, data)
        train_step = profiler.ProfiledStep(jit_train_step(system), folder, settings.profile_steps)
        losses, document_losses = system.eval_losses(), system.document_losses()
        report = reporter.Reporter(system, folder, int(state.step))
        schedule = save_schedule.SaveSchedule(settings)
        for number in range(int(state.step) + 1, settings.steps + 1):
            with report.data_wait():
                batch = next(data)
            state, measured = train_step(number, state, batch)
            report.record(number, measured)
            heldout_loss = None
            if number % settings.eval_every == 0:
                with report.pause_timer():
                    params = system.merge_params(state.ema)
                    scalars, by_document = measure_losses(params, losses, document_losses)
                    heldout_loss = scalars.get(eval_loss.HELDOUT_LOSS)
                    report.write(number, scalars, by_document)
            last = number == settings.steps or stop.is_due(number)
            if schedule.is_due(number) or last:
                with report.pause_timer():  # Raises an error if the loss is not finite.
                    owner.check()
                    # The saved data position must match the state, so the loop reads the next
                    # batch only after the save.
                    checkpoints.save(state, number, data, heldout_loss)
                schedule.restart()
            if preview and number % settings.preview_every == 0:
                with report.pause_timer():
                    preview(number, system.merge_params(state.ema))
            if last:
                break
        checkpoints.wait()
        report.close()
    if int(state.step) < settings.steps:
        stop.raise_if_made(int(state.step))


def measure_losses(
    params: PyTree,
    losses: Callable[[PyTree], dict[str, float]],
    document_losses: DocumentLossFn | None,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return scalars by name, and the loss of each document by name."""
    scalars = losses(params)
    if document_losses is None:
        return scalars, {}
    more, by_document = document_losses(params)
    return scalars | more, by_document


def restore_or_init(
    system: System, checkpoints: checkpoint.Checkpoints, data: streams.BatchIterator
) -> TrainState:
    """Restore the newest checkpoint and the position of `data`, or return the initial state."""
    if checkpoints.latest_step is None:
        state = system.initialize_from(train_state.init_sharded(system))
        logging.info("%s", parameter_overview.get_parameter_overview(state.params))
        _log_start(1, system.loop_config.steps)
        return state
    state = checkpoints.restore(
        system.abstract_state,
        data,
        skip_damaged=system.loop_config.skip_damaged,
        broadcast_min_gb=system.loop_config.broadcast_min_gb,
    )
    logging.info("Resuming from step %d.", checkpoints.latest_step)
    _log_start(checkpoints.latest_step + 1, system.loop_config.steps)
    return state


def _log_start(first: int, last: int) -> None:
    """Log from which step to which the loop trains, and why it is slow at first."""
    if first <= last:
        logging.info(
            "Training begins with step %d of %d. The first step and the first evaluation take "
            "longer than later ones, because they compile their programs.",
            first,
            last,
        )


def jit_train_step(
    system: System,
) -> Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]:
    """Jit the training step over the mesh; the jitted step donates its input state."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, system.abstract_state)
    return jax.jit(
        system.train_step,
        in_shardings=(shardings, system.batch_sharding),
        out_shardings=(shardings, sharding.replicated_sharding(system.mesh)),
        donate_argnums=0,
    )
