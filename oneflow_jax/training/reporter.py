"""Reports of a training run: mean metrics of its steps, and its speed.

train/NAME_per_second            rate of NAME, such as documents or slots, for each name in
                                 `System.throughput_keys`; pauses for evaluation, saving and
                                 previews do not count
train/step_time                  median duration in seconds of the steps since the last report
train/step_time_max_over_median  duration of the slowest of these steps divided by the median
train/data_wait_fraction         fraction of the time spent waiting for data, maximum over processes
train/data_wait_argmax_process   index of the process with this maximum, in multi-process runs
train/goodput                    (number of steps x median step duration) / time since this process
                                 began to train; the rest of the time went to compilation,
                                 evaluation, saving and waiting
train/model_flops_per_second     FLOP/s of the matrix products on all devices, by `costs.flops`
train/mfu                        model FLOP/s divided by the peak FLOP/s of the devices, if known to
                                 `costs.chips`
"""

import contextlib
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

import jax
import numpy as np
from clu import metrics
from etils import epath
from jax.experimental import multihost_utils

from oneflow_jax.costs import chips
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, metric_writer, trackers, workdir
from oneflow_jax.training import diagnosis, eval_loss, optimizer, overfitting
from oneflow_jax.training.loop_config import LoopConfig
from oneflow_jax.training.update import Metrics


class ReportedSystem(Protocol):
    """The attributes of `loop.System` that reports need."""

    loop_config: LoopConfig
    mesh: jax.sharding.Mesh
    optimizer_config: optimizer.OptimizerConfig
    throughput_keys: tuple[str, ...]

    @property
    def flops(self) -> float:
        """FLOPs of the matrix products of one step, or 0 if they are unknown."""


class Reporter:
    """Writer of training metrics to the logs and to the progress bar.

    The reporter reads the metrics of a step only after the next step has started, so the devices
    never wait for the host. Reported values are means over the steps since the last report.
    """

    def __init__(self, system: ReportedSystem, folder: epath.Path, start_step: int) -> None:
        """Start reporting after step `start_step`."""
        settings = system.loop_config
        self._folder = folder
        self._every = settings.log_every
        self._lr_schedule = optimizer.schedule(system.optimizer_config)
        self._throughput_keys = system.throughput_keys
        self._flops = system.flops
        self._peak_flops = _peak_flops(system.mesh)
        self._writer = _open_writer(settings, folder / workdir.LOGS, start_step)
        self._progress = metric_writer.ProgressBar("training", settings.steps, start_step)
        self._pending: tuple[int, Metrics] | None = None
        self._sums: Metrics = {}
        self._step_times: list[float] = []
        self._data_wait_seconds = 0.0
        # The logs may have evaluations after `start_step`, of steps that training repeats.
        history = metric_writer.read_documents(folder / workdir.LOGS)
        self._history = [one for one in history if one[0] <= start_step]
        self._start_step, self._start_time = start_step, time.monotonic()
        self._last_flush_time = self._start_time

    @contextlib.contextmanager
    def data_wait(self) -> Iterator[None]:
        """Add the duration of a `with` block to the time that steps have waited for data."""
        began = time.monotonic()
        yield
        self._data_wait_seconds += time.monotonic() - began

    @contextlib.contextmanager
    def pause_timer(self) -> Iterator[None]:
        """Exclude the duration of a `with` block, such as an evaluation, from the step times."""
        self.flush_pending()
        yield
        self._last_flush_time = time.monotonic()

    def record(self, step: int, step_metrics: Metrics) -> None:
        """Add the metrics of step `step`, which the devices may still be computing."""
        self.flush_pending()
        self._pending = (step, step_metrics)

    def flush_pending(self) -> None:
        """Wait for the last step passed to `record`, and add its metrics to the report.

        Raises:
            UserError: the loss or the gradient of this step is not finite.
        """
        if self._pending is None:
            return
        number, measured = self._pending
        self._pending = None
        measured = jax.device_get(measured)
        now = time.monotonic()
        self._step_times.append(now - self._last_flush_time)
        self._last_flush_time = now
        wrong = [name for name, value in measured.items() if not math.isfinite(value.total)]
        if wrong:
            raise UserError(
                f"Step {number}: {', '.join(wrong)} is not finite. The checkpoints in "
                f"{self._folder} were saved before this step and are complete. Lower "
                "optimizer.learning_rate or optimizer.max_grad_norm, and run the same command "
                "again to resume from the newest one."
            )
        self._sums = _merge(self._sums, measured)
        self._progress.advance(number)
        if number % self._every == 0:
            self._write_report(number)

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        by_document: dict[str, list[float]] | None = None,
    ) -> None:
        """Write an evaluation to the logs, and log what it says in words.

        Args:
            step: the step of the evaluation.
            scalars: scalars by name, for example held-out losses.
            by_document: losses of single documents by name, which show overfitting.
        """
        self._writer.write_scalars(step, scalars)
        if by_document:
            if eval_loss.HELDOUT_LOSS in scalars:
                total = {overfitting.TOTAL: [scalars[eval_loss.HELDOUT_LOSS]]}
                by_document = by_document | total
            self._writer.write_documents(step, by_document)
            self._history.append((step, by_document))
        self._writer.flush()
        if losses := _describe_losses(scalars):
            logging.info("Step %d: %s", step, losses)
        overfitted = overfitting.find(self._history)
        for sentence in diagnosis.describe_evidence(scalars, overfitted):
            logging.info("Step %d: %s", step, sentence)
        if verdict := diagnosis.diagnose(scalars, overfitted):
            logging.info("Step %d: %s", step, verdict)

    def close(self) -> None:
        """Close the logs and the progress bar."""
        self.flush_pending()
        self._writer.close()
        self._progress.close()

    def _write_report(self, step: int) -> None:
        # A loss term without scored slots has no mean. This occurs if no document had its task.
        scored = {name: value for name, value in self._sums.items() if value.count > 0}
        means = {name: float(value.compute()) for name, value in scored.items()}
        processed = {name: means.pop(name) for name in self._throughput_keys}
        means["learning_rate"] = float(self._lr_schedule(step))
        speeds = self._throughput(step, processed)
        scalars = {f"train/{name}": value for name, value in (means | speeds).items()}
        self._writer.write_scalars(step, scalars)
        self._writer.flush()
        quiet = ("norm", "rate")
        terms = [f"{name} {means[name]:.3f}" for name in means if not name.endswith(quiet)]
        first = self._throughput_keys[0]
        summary = f"{', '.join(terms)}, {speeds[f'{first}_per_second']:.0f} {first}/s"
        if "mfu" in speeds:
            summary += f", MFU {speeds['mfu']:.0%}"
        self._progress.report(step, summary)
        self._sums, self._step_times, self._data_wait_seconds = {}, [], 0.0

    def _throughput(self, step: int, processed: Mapping[str, float]) -> dict[str, float]:
        seconds, count = sum(self._step_times), len(self._step_times)
        median = statistics.median(self._step_times)
        scalars = {f"{name}_per_second": x * count / seconds for name, x in processed.items()}
        scalars["step_time"] = median
        scalars["step_time_max_over_median"] = max(self._step_times) / median
        scalars |= _max_data_wait(self._data_wait_seconds / seconds)
        scalars["goodput"] = (
            (step - self._start_step) * median / (time.monotonic() - self._start_time)
        )
        if self._flops:
            scalars["model_flops_per_second"] = self._flops / median
        if self._flops and self._peak_flops:
            scalars["mfu"] = scalars["model_flops_per_second"] / self._peak_flops
        return scalars


def _open_writer(
    settings: LoopConfig, directory: epath.Path, start_step: int
) -> metric_writer.MetricWriter | metric_writer.NullWriter:
    """Open the logs in the primary process."""
    if not distributed.is_primary():
        return metric_writer.NullWriter()
    opened = trackers.open_trackers(settings.wandb_project, settings.mlflow_uri, directory)
    return metric_writer.MetricWriter(directory, start_step, opened)


def _describe_losses(scalars: Mapping[str, float]) -> str:
    """Return the held-out losses of an evaluation in words; "" if it has none."""
    terms = [
        f"{scalars[key]:.3g} on {kind}"
        for key, kind in (("eval/loss_text", "text"), ("eval/loss_image", "images"))
        if key in scalars
    ]
    return f"Held-out loss {', '.join(terms)} (lower is better)." if terms else ""


def _max_data_wait(data_wait: float) -> dict[str, float]:
    """Return the maximum data wait over processes; with several, also the process that has it.

    All processes take a step together, so the step time does not show which host is slow. The data
    wait of each process shows it.
    """
    if jax.process_count() == 1:
        return {"data_wait_fraction": data_wait}
    data_waits = multihost_utils.process_allgather(np.float32(data_wait))
    return {
        "data_wait_fraction": float(np.max(data_waits)),
        "data_wait_argmax_process": float(np.argmax(data_waits)),
    }


def _peak_flops(mesh: jax.sharding.Mesh) -> float:
    """Return the peak FLOP/s of all devices together; 0 if the peak is unknown."""
    kind = mesh.devices.flat[0].device_kind
    return (
        chips.CHIPS[chips.DEVICE_KINDS[kind]].peak_flops * mesh.size
        if kind in chips.DEVICE_KINDS
        else 0.0
    )


def _merge(sums: Metrics, new: Metrics) -> dict[str, metrics.Average]:
    return {name: value.merge(sums[name]) if sums else value for name, value in new.items()}
