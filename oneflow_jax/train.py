"""The training loop, from first to last."""

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Mapping

import grain
import jax
from clu import metrics, parameter_overview
from etils import epath

from oneflow_jax import build, checkpoint, evaluate, logs, optim, sharding, step, workdir
from oneflow_jax.canvas import Canvas
from oneflow_jax.data import pipeline
from oneflow_jax.errors import UserError


def run(system: build.System, folder: epath.Path) -> None:
    """Trains to the last step, going on from the newest checkpoint in `folder` if there is one.

    Raises:
        UserError: the loss is not finite, or a checkpoint cannot be written.
    """
    config = system.config
    with (
        sharding.use(system.mesh),
        contextlib.closing(iter(batches(system))) as data,
        checkpoint.Checkpoints(folder, config.checkpoint.keep) as checkpoints,
    ):
        state = restored_or_new(system, checkpoints, data)
        train_step = compiled(system)
        losses = evaluate.Losses(system)
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


def batches(system: build.System) -> grain.IterDataset[Canvas]:
    """The endless training batches, on the devices."""
    config = system.config
    return pipeline.batches(
        build.source(config, "train"),
        system.layout,
        rows=config.batch,
        seed=config.seed,
        workers=config.data.workers,
        cache=config.data.cache,
        sharding=sharding.of_rows(system.mesh),
    )


def restored_or_new(
    system: build.System, checkpoints: checkpoint.Checkpoints, data: grain.DatasetIterator
) -> step.TrainState:
    """The newest checkpoint's state, with `data` set to where it stood; else the first state."""
    if checkpoints.latest is None:
        state = build.initial_state(system)
        logging.info("%s", parameter_overview.get_parameter_overview(state.params))
        return state
    logging.info("Going on from step %d.", checkpoints.latest)
    return checkpoints.restore(build.abstract_state(system), data)


def compiled(
    system: build.System,
) -> Callable[[step.TrainState, Canvas], tuple[step.TrainState, step.Metrics]]:
    """The training step as one program over the mesh; it consumes the state it is given."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, build.abstract_state(system))
    update = functools.partial(
        step.train_step,
        model=system.model,
        paradigm=system.paradigm,
        optimizer=system.optimizer,
        decay=system.settings.ema,
        parts=system.config.parts,
    )
    return jax.jit(
        update,
        in_shardings=(shardings, sharding.of_rows(system.mesh)),
        out_shardings=(shardings, sharding.replicated(system.mesh)),
        donate_argnums=0,
    )


class Report:
    """Reports training, one step late, so that the devices never wait for the host.

    Means over the steps since the last report go to the logs and beside the progress bar.
    """

    def __init__(self, system: build.System, folder: epath.Path, start: int) -> None:
        """Goes on from step `start`."""
        config = system.config
        self._folder = folder
        self._every = config.logging.every
        self._rate = optim.schedule(system.settings)
        self._slots = config.batch * config.data.length
        self._writer = logs.Writer(folder / workdir.LOGS, resume_at=start)
        self._progress = logs.Progress("training", config.steps, start)
        self._pending: tuple[int, step.Metrics] | None = None
        self._sums: step.Metrics = {}
        self._since, self._began = start, time.monotonic()

    def add(self, number: int, measured: step.Metrics) -> None:
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
            "documents_per_second": means.pop("documents") * steps_per_second,
            "slots_per_second": self._slots * steps_per_second,
            "learning_rate": float(self._rate(number)),
        }
        scalars = {f"train/{name}": value for name, value in (means | speeds).items()}
        self._writer.write_scalars(number, scalars)
        self._writer.flush()
        terms = [f"{name} {means[name]:.3f}" for name in means if not name.endswith("norm")]
        self._progress.report(
            number, f"{', '.join(terms)}, {speeds['documents_per_second']:.0f} documents/s"
        )
        self._sums, self._since, self._began = {}, number, now


def _merged(sums: step.Metrics, more: step.Metrics) -> dict[str, metrics.Average]:
    return {name: value.merge(sums[name]) if sums else value for name, value in more.items()}
