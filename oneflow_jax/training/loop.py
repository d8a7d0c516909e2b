"""The training loop, from first to last, whatever it is that is trained."""

import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

import jax
import ml_collections
from clu import parameter_overview
from etils import epath

from oneflow_jax.data import streams
from oneflow_jax.runtime import preemption, sharding, storage
from oneflow_jax.shapes import Key, PyTree
from oneflow_jax.training import checkpoint, optimizer, profiler, reporter, train_state
from oneflow_jax.training.train_state import TrainState
from oneflow_jax.training.update import Metrics


class System(Protocol):
    """What can be trained.

    Attributes:
        config: of the run; the loop reads its steps and how often to log, save and evaluate.
        mesh: the devices.
        placement: where batches lie on them.
        settings: of the optimizer.
        amounts: what `update` logs an amount of, to be told per second, the foremost first.
    """

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    placement: jax.sharding.Sharding
    settings: optimizer.OptimizerConfig
    amounts: tuple[str, ...]

    @property
    def flops(self) -> float:
        """Of the matrix products of one step; 0 if nobody has counted them."""

    def first_state(self, key: Key) -> TrainState:
        """The state before the first step, perhaps boxed in linen's partitioning metadata."""

    def begun(self, state: TrainState) -> TrainState:
        """The first state with what it takes over from another run, if any."""

    def batches(self) -> streams.BatchStreams:
        """The endless training batches, on the devices."""

    def update(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """The state after one step, and what to log of it."""

    def losses(self) -> Callable[[PyTree], dict[str, float]]:
        """What tells held-out losses by name of averaged parameters."""


def run(
    system: System, folder: epath.Path, preview: Callable[[int, PyTree], None] | None = None
) -> None:
    """Trains to the last step, going on from the newest checkpoint in `folder` if there is one.

    Args:
        system: what is trained.
        folder: of the run.
        preview: shows what averaged parameters make, every `sampling.every` steps.

    Raises:
        UserError: the loss is not finite, a checkpoint cannot be written, or another run has taken
            over the folder.
        Stopped: SIGTERM came; the state is saved.
    """
    config, kept = system.config, system.config.checkpoint
    owner = storage.TrainingLease(folder)
    with (
        sharding.mesh_context(system.mesh),
        contextlib.closing(iter(system.batches())) as data,
        checkpoint.Checkpoints(folder, kept.keep, kept.milestones) as checkpoints,
        preemption.sigterm_handler() as must_leave,
    ):
        state = restore_or_init(system, checkpoints, data)
        train_step = profiler.ProfiledStep(jit_train_step(system), folder, config.profile)
        losses = system.losses()
        report = reporter.Reporter(system, folder, int(state.step))
        for number in range(int(state.step) + 1, config.steps + 1):
            with report.waiting():
                batch = next(data)
            state, measured = train_step(number, state, batch)
            report.add(number, measured)
            if number % config.evaluation.every == 0:
                with report.pause_timer():
                    report.write(number, losses(state.ema))
            last = number == config.steps or must_leave(number)
            if number % config.checkpoint.every == 0 or last:
                with report.pause_timer():  # A state that is not finite is never saved.
                    owner.check()
                    # The iterator must stand where the state does: nothing is drawn before.
                    checkpoints.save(state, number, data)
            if preview and number % config.sampling.every == 0:
                with report.pause_timer():
                    preview(number, state.ema)
            if last:
                break
        checkpoints.wait()
        report.close()
    if int(state.step) < config.steps:
        preemption.raise_preempted(int(state.step))


def restore_or_init(
    system: System, checkpoints: checkpoint.Checkpoints, data: streams.BatchIterator
) -> TrainState:
    """The newest checkpoint's state, with `data` set to where it stood; else the first state."""
    if checkpoints.latest is None:
        state = system.begun(train_state.init_sharded(system))
        logging.info("%s", parameter_overview.get_parameter_overview(state.params))
        return state
    logging.info("Going on from step %d.", checkpoints.latest)
    return checkpoints.restore(train_state.abstract_state(system), data)


def jit_train_step(
    system: System,
) -> Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]:
    """The training step as one program over the mesh; it consumes the state it is given."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, train_state.abstract_state(system))
    return jax.jit(
        system.update,
        in_shardings=(shardings, system.placement),
        out_shardings=(shardings, sharding.replicated_sharding(system.mesh)),
        donate_argnums=0,
    )
