"""The training loop, from first to last, whatever it is that is trained."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import grain
import jax
import ml_collections
from clu import metrics, parameter_overview
from etils import epath

from oneflow_jax import checkpoint, logs, optim, sharding, workdir
from oneflow_jax import state as states
from oneflow_jax.errors import UserError
from oneflow_jax.shapes import Key, PyTree
from oneflow_jax.state import TrainState
from oneflow_jax.update import Metrics


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
    settings: optim.Settings
    amounts: tuple[str, ...]

    def first_state(self, key: Key) -> TrainState:
        """The state before the first step, perhaps boxed in linen's partitioning metadata."""

    def begun(self, state: TrainState) -> TrainState:
        """The first state with what it takes over from another run, if any."""

    def batches(self) -> grain.IterDataset:
        """The endless training batches, on the devices."""

    def update(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """The state after one step, and what to log of it."""

    def losses(self) -> Callable[[PyTree], dict[str, float]]:
        """What tells held-out losses by name of averaged parameters."""


def run(system: System, folder: epath.Path) -> None:
    """Trains to the last step, going on from the newest checkpoint in `folder` if there is one.

    Raises:
        UserError: the loss is not finite, or a checkpoint cannot be written.
    """
    config = system.config
    with (
        sharding.use(system.mesh),
        contextlib.closing(iter(system.batches())) as data,
        checkpoint.Checkpoints(folder, config.checkpoint.keep) as checkpoints,
    ):
        state = restored_or_new(system, checkpoints, data)
        train_step = compiled(system)
        losses = system.losses()
        report = Report(system, folder, int(state.step))
        for number in range(int(state.step) + 1, config.steps + 1):
            state, measured = train_step(state, next(data))
            report.add(number, measured)
            if number % config.evaluation.every == 0:
                report.write(number, losses(state.ema))
            if number % config.checkpoint.every == 0 or number == config.steps:
                report.settle()  # A state that is not finite must never be saved.
                # The iterator must stand where the state does: nothing is drawn before the save.
                checkpoints.save(state, number, data)
        checkpoints.wait()
        report.close()


def restored_or_new(
    system: System, checkpoints: checkpoint.Checkpoints, data: grain.DatasetIterator
) -> TrainState:
    """The newest checkpoint's state, with `data` set to where it stood; else the first state."""
    if checkpoints.latest is None:
        state = system.begun(states.initial(system))
        logging.info("%s", parameter_overview.get_parameter_overview(state.params))
        return state
    logging.info("Going on from step %d.", checkpoints.latest)
    return checkpoints.restore(states.abstract(system), data)


def compiled(
    system: System,
) -> Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]:
    """The training step as one program over the mesh; it consumes the state it is given."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, states.abstract(system))
    return jax.jit(
        system.update,
        in_shardings=(shardings, system.placement),
        out_shardings=(shardings, sharding.replicated(system.mesh)),
        donate_argnums=0,
    )


class Report:
    """Reports training, one step late, so that the devices never wait for the host.

    Means over the steps since the last report go to the logs and beside the progress bar.
    """

    def __init__(self, system: System, folder: epath.Path, start: int) -> None:
        """Goes on from step `start`."""
        config = system.config
        self._folder = folder
        self._every = config.logging.every
        self._rate = optim.schedule(system.settings)
        self._amounts = system.amounts
        self._writer = logs.Writer(folder / workdir.LOGS, resume_at=start)
        self._progress = logs.Progress("training", config.steps, start)
        self._pending: tuple[int, Metrics] | None = None
        self._sums: Metrics = {}
        self._since, self._began = start, time.monotonic()

    def add(self, number: int, measured: Metrics) -> None:
        """Takes what step `number`, perhaps still running, will have measured."""
        self.settle()
        self._pending = (number, measured)

    def settle(self) -> None:
        """Waits for the step last added, and reports it.

        Raises:
            UserError: its loss or gradient is not finite.
        """
        if self._pending is None:
            return
        number, measured = self._pending
        self._pending = None
        measured = jax.device_get(measured)
        wrong = [name for name, value in measured.items() if not math.isfinite(value.total)]
        if wrong:
            raise UserError(
                f"Step {number}: {', '.join(wrong)} is not finite. The checkpoints in "
                f"{self._folder} are from before and are whole. Lower optimizer.learning_rate or "
                "optimizer.clip, and run the same command again to go on from the newest."
            )
        self._sums = _merged(self._sums, measured)
        self._progress.advance(number)
        if number % self._every == 0:
            self._report(number)

    def write(self, number: int, scalars: Mapping[str, float]) -> None:
        """Adds scalars of another origin to the logs."""
        self._writer.write_scalars(number, scalars)
        self._writer.flush()

    def close(self) -> None:
        """Closes the logs and the bar."""
        self.settle()
        self._writer.close()
        self._progress.close()

    def _report(self, number: int) -> None:
        now = time.monotonic()
        steps_per_second = (number - self._since) / (now - self._began)
        # What nothing was scored for, as in a task that did not come, has no mean.
        some = {name: value for name, value in self._sums.items() if value.count > 0}
        means = {name: float(value.compute()) for name, value in some.items()}
        speeds = {
            f"{name}_per_second": means.pop(name) * steps_per_second for name in self._amounts
        }
        means["learning_rate"] = float(self._rate(number))
        scalars = {f"train/{name}": value for name, value in (means | speeds).items()}
        self._writer.write_scalars(number, scalars)
        self._writer.flush()
        quiet = ("norm", "rate")
        terms = [f"{name} {means[name]:.3f}" for name in means if not name.endswith(quiet)]
        first = self._amounts[0]
        self._progress.report(
            number, f"{', '.join(terms)}, {speeds[f'{first}_per_second']:.0f} {first}/s"
        )
        self._sums, self._since, self._began = {}, number, now


def _merged(sums: Metrics, more: Metrics) -> dict[str, metrics.Average]:
    return {name: value.merge(sums[name]) if sums else value for name, value in more.items()}
