"""What is told of a training run: means of what its steps measured, and how fast it is.

train/NAME_per_second         of each of `System.amounts`, pauses for other work left out
train/step_seconds            the median of the steps since the last report
train/step_spread             the slowest of them by the median: 1 if all are alike
train/waiting                 share of the time that the slowest process waited for its data
train/slowest_process         which one that was, where there are several
train/goodput                 share of the time since this process began to train that its steps
                              would have taken at their median; the rest went to compiling,
                              evaluating, saving and waiting
train/model_flops_per_second  of matrix products, as `costs.flops` counts them, on all devices
train/mfu                     the same by the devices' peak, where `costs.chips` knows it
"""

import contextlib
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

import jax
import ml_collections
import numpy as np
from clu import metrics
from etils import epath
from jax.experimental import multihost_utils

from oneflow_jax.costs import chips
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, metric_writer, workdir
from oneflow_jax.training import optimizer
from oneflow_jax.training.update import Metrics


class ReportedSystem(Protocol):
    """What a report is about: see `loop.System`."""

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    settings: optimizer.OptimizerConfig
    amounts: tuple[str, ...]

    @property
    def flops(self) -> float:
        """Of the matrix products of one step; 0 if nobody has counted them."""


class Reporter:
    """Reports training, one step late, so that the devices never wait for the host.

    Means over the steps since the last report go to the logs and beside the progress bar.
    """

    def __init__(self, system: ReportedSystem, folder: epath.Path, start: int) -> None:
        """Goes on from step `start`."""
        config = system.config
        self._folder = folder
        self._every = config.logging.every
        self._rate = optimizer.schedule(system.settings)
        self._amounts = system.amounts
        self._flops = system.flops
        self._peak = _peak_flops(system.mesh)
        self._writer = (
            metric_writer.MetricWriter(folder / workdir.LOGS, resume_at=start)
            if distributed.is_primary()
            else metric_writer.NullWriter()
        )
        self._progress = metric_writer.ProgressBar("training", config.steps, start)
        self._pending: tuple[int, Metrics] | None = None
        self._sums: Metrics = {}
        self._seconds: list[float] = []
        self._waited = 0.0
        self._start, self._began = start, time.monotonic()
        self._settled = self._began

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what the step waits for: its data."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextlib.contextmanager
    def pause_timer(self) -> Iterator[None]:
        """Around other work between two steps, which is not to count as theirs."""
        self.settle()
        yield
        self._settled = time.monotonic()

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
        now = time.monotonic()
        self._seconds.append(now - self._settled)
        self._settled = now
        wrong = [name for name, value in measured.items() if not math.isfinite(value.total)]
        if wrong:
            raise UserError(
                f"Step {number}: {', '.join(wrong)} is not finite. The checkpoints in "
                f"{self._folder} are from before and are whole. Lower optimizer.learning_rate or "
                "optimizer.clip, and run the same command again to go on from the newest."
            )
        self._sums = _merge(self._sums, measured)
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
        # What nothing was scored for, as in a task that did not come, has no mean.
        some = {name: value for name, value in self._sums.items() if value.count > 0}
        means = {name: float(value.compute()) for name, value in some.items()}
        amounts = {name: means.pop(name) for name in self._amounts}
        means["learning_rate"] = float(self._rate(number))
        speeds = self._speeds(number, amounts)
        scalars = {f"train/{name}": value for name, value in (means | speeds).items()}
        self._writer.write_scalars(number, scalars)
        self._writer.flush()
        quiet = ("norm", "rate")
        terms = [f"{name} {means[name]:.3f}" for name in means if not name.endswith(quiet)]
        first = self._amounts[0]
        told = f"{', '.join(terms)}, {speeds[f'{first}_per_second']:.0f} {first}/s"
        if "mfu" in speeds:
            told += f", MFU {speeds['mfu']:.0%}"
        self._progress.report(number, told)
        self._sums, self._seconds, self._waited = {}, [], 0.0

    def _speeds(self, number: int, amounts: Mapping[str, float]) -> dict[str, float]:
        seconds, count = sum(self._seconds), len(self._seconds)
        median = statistics.median(self._seconds)
        found = {f"{name}_per_second": x * count / seconds for name, x in amounts.items()}
        found["step_seconds"] = median
        found["step_spread"] = max(self._seconds) / median
        found |= _max_data_wait(self._waited / seconds)
        found["goodput"] = (number - self._start) * median / (time.monotonic() - self._began)
        if self._flops:
            found["model_flops_per_second"] = self._flops / median
        if self._flops and self._peak:
            found["mfu"] = found["model_flops_per_second"] / self._peak
        return found


def _max_data_wait(data_wait: float) -> dict[str, float]:
    """The longest that a process waits for its data, and which one, if there are several.

    All processes take their steps together: what a slow one makes the others wait is not seen in
    their steps, but in what it waited for itself.
    """
    if jax.process_count() == 1:
        return {"waiting": data_wait}
    every = multihost_utils.process_allgather(np.float32(data_wait))
    return {"waiting": float(np.max(every)), "slowest_process": float(np.argmax(every))}


def _peak_flops(mesh: jax.sharding.Mesh) -> float:
    """FLOP/s of all devices; 0 if it is not known."""
    kind = mesh.devices.flat[0].device_kind
    return (
        chips.CHIPS[chips.DEVICE_KINDS[kind]].peak * mesh.size
        if kind in chips.DEVICE_KINDS
        else 0.0
    )


def _merge(sums: Metrics, new: Metrics) -> dict[str, metrics.Average]:
    return {name: value.merge(sums[name]) if sums else value for name, value in new.items()}
