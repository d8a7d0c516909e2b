"""Logging, metric files and progress bars."""

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tqdm
from etils import epath

from oneflow_jax.runtime import distributed, renamed_keys, storage
from oneflow_jax.runtime.trackers import Tracker

METRICS_FILE = "metrics.jsonl"
"""File with one JSON line for each report: {"step": 100, "train/loss": 1.2, ...}."""

DOCUMENTS_FILE = "document_losses.jsonl"
"""File with one JSON line for each evaluation of single documents: {"step": 100, "text_heldout":
[1.2, 0.9], ...}."""


def setup_logging() -> None:
    """Log messages of this project from level INFO up, and silence the libraries that it uses."""
    handler = ConsoleHandler()
    handler.addFilter(_DropRepeats())
    # `force` removes handlers that libraries installed when they were imported.
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[handler],
        force=True,
    )
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax and TFDS log internals.
    # JAX logs missing platforms; gcsfs and fsspec log the caching of objects.
    for name in (
        "jax",
        "gcsfs",
        "fsspec",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)


class ConsoleHandler(logging.StreamHandler):
    """Writes messages to stderr, above the live progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Clear the live progress bars, write the message, and draw the bars again."""
        with tqdm.tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class _DropRepeats(logging.Filter):
    """Drops a message that `log_once` has logged before."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "once", False):
            return True
        message = record.getMessage()
        is_new = message not in self._seen
        self._seen.add(message)
        return is_new


def log_once(message: str, *values: object) -> None:
    """Log a message of level INFO, unless the process has already logged an equal one this way.

    A run builds its system several times, for example to measure the time of a step before
    training, and would log its automatic choices each time.
    """
    logging.info(message, *values, extra={"once": True})


def set_quiet() -> None:
    """Log only warnings and errors, for processes other than the primary process."""
    logging.getLogger().setLevel(logging.WARNING)


class NullWriter:
    """A `MetricWriter` that writes nothing, for processes other than the primary process."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Do nothing."""

    def write_documents(self, step: int, losses: Mapping[str, Sequence[float]]) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class MetricWriter:
    """Writer of scalars as JSON lines, as TensorBoard events, and to trackers.

    The class has the methods of `clu.metric_writers.MetricWriter` that training calls. It replaces
    clu's writers because importing them needs TensorFlow.
    """

    def __init__(
        self, directory: epath.Path, resume_step: int = 0, trackers: Sequence[Tracker] = ()
    ) -> None:
        """Open `directory` and delete reports of steps after `resume_step`, which training repeats.

        Args:
            directory: folder of the files. A missing folder is created.
            resume_step: the step from which training resumes.
            trackers: runs in tracking services, which the writer closes.
        """
        self._trackers = trackers
        self._staged = storage.StagedDirectory(directory)
        rows = [row for row in read_metrics(directory) if row["step"] <= resume_step]
        path = self._staged.local / METRICS_FILE
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._lines = path.open("a")
        if (directory / DOCUMENTS_FILE).exists():
            rows = [
                row for row in _read_rows(directory / DOCUMENTS_FILE) if row["step"] <= resume_step
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (self._staged.local / DOCUMENTS_FILE).write_text(text)
        where = str(self._staged.local)
        import tensorboardX  # A slow import: it loads the client of Google Cloud Storage.

        self._events = tensorboardX.SummaryWriter(where, purge_step=resume_step + 1)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of one step: a JSON line, and TensorBoard events."""
        # JSON cannot represent infinity or NaN.
        row = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
        self._lines.write(json.dumps({"step": step} | row) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(name.replace("=", "_"), value, step)  # TensorBoard rejects "=".
        for tracker in self._trackers:
            tracker.write_scalars(step, scalars)

    def write_documents(self, step: int, losses: Mapping[str, Sequence[float]]) -> None:
        """Write the losses of single documents, by name; a document without a loss has NaN."""
        row = {
            name: [x if math.isfinite(x) else None for x in values]
            for name, values in losses.items()
        }
        with (self._staged.local / DOCUMENTS_FILE).open("a") as file:
            file.write(json.dumps({"step": step} | row) + "\n")

    def flush(self) -> None:
        """Write all buffered scalars to the files."""
        self._lines.flush()
        self._events.flush()
        self._staged.sync()

    def close(self) -> None:
        """Flush and close the files."""
        self._lines.close()
        self._events.close()
        self._staged.close()
        for tracker in self._trackers:
            tracker.close()


def read_metrics(directory: epath.Path) -> list[dict[str, float]]:
    """Return all reports in a folder, in order, with the current names of metrics.

    A killed run may leave a truncated line, which is skipped.
    """
    return [
        {renamed_keys.upgrade_metric(name): value for name, value in row.items()}
        for row in _read_rows(directory / METRICS_FILE)
    ]


def read_documents(directory: epath.Path) -> list[tuple[int, dict[str, list[float | None]]]]:
    """Return (step, losses of single documents by name) of each evaluation in a folder."""
    rows = _read_rows(directory / DOCUMENTS_FILE)
    return [(int(row.pop("step")), row) for row in rows]


def _read_rows(path: epath.Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines without truncated lines; [] if it does not exist."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            logging.warning("%s: a truncated line is skipped: %s", path, line[:80])
    return rows


def read_curves(
    directory: epath.Path, names: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """Return the reported (step, value) pairs of each name, in order; infinity becomes NaN."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in read_metrics(directory):
        for name in names:
            if name in row:
                value = float("nan") if row[name] is None else row[name]
                curves.setdefault(name, []).append((row["step"], value))
    return curves


class ProgressBar:
    """The progress of a long computation: a live bar on a terminal, otherwise lines in the log."""

    def __init__(self, title: str, total: int, start: int = 0, unit: str = "step") -> None:
        """Create a bar for `total` units, such as steps, of which `start` are already done."""
        self._live = sys.stderr.isatty() and distributed.is_primary()
        self._title, self._total, self._start = title, total, start
        self._start_time = self._last = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total,
            initial=start,
            desc=title,
            unit=unit,
            disable=not self._live,
            dynamic_ncols=True,
        )

    def advance(self, done: int) -> None:
        """Set the number of finished units that a live bar shows."""
        with contextlib.suppress(OSError):  # The terminal has been closed.
            self._bar.update(done - self._bar.n if self._live else 0)

    def report(self, done: int, text: str) -> None:
        """Show a text after the live bar; without a terminal, log the text and the time left."""
        if self._live:
            with contextlib.suppress(OSError):
                self._bar.set_postfix_str(text)
            return
        elapsed = time.monotonic() - self._start_time
        left = elapsed / max(1, done - self._start) * (self._total - done)
        logging.info(
            "%s %d/%d | %s | %s left", self._title, done, self._total, text, _format_duration(left)
        )

    def close(self) -> None:
        """Close the bar; it stays visible."""
        with contextlib.suppress(OSError):
            self._bar.close()


def _format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
