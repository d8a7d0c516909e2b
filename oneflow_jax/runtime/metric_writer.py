"""What a run reports: scalars to files, progress to people."""

import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence

import tensorboardX
import tqdm
from etils import epath

from oneflow_jax.runtime import distributed, storage

METRICS_FILE = "metrics.jsonl"
"""One line for each report: {"step": 100, "train/loss": 1.2, ...}."""


def setup_logging() -> None:
    """Lets this process tell people what it does, and keeps its libraries from telling theirs."""
    # force: libraries imported before have put handlers of their own in place.
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax, TFDS: their inner life ...
    for name in (
        "jax",
        "gcsfs",
        "fsspec",
    ):  # ... which platforms JAX lacks, how objects are cached.
        logging.getLogger(name).setLevel(logging.WARNING)


def set_quiet() -> None:
    """Leaves it to another process to tell how it goes."""
    logging.getLogger().setLevel(logging.WARNING)


class NullWriter:
    """Write nothing: the `MetricWriter` of processes other than the primary one."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Does nothing, like the others."""

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class MetricWriter:
    """Writes scalars as JSON lines and as TensorBoard events.

    It has the methods of `clu.metric_writers.MetricWriter` that training calls; clu's own writers
    cannot be imported without TensorFlow.
    """

    def __init__(self, directory: epath.Path, resume_at: int = 0) -> None:
        """Opens `directory`; what was reported beyond step `resume_at` will be reported again.

        Args:
            directory: where the files go; made if need be.
            resume_at: the step that training goes on from.
        """
        self._staged = storage.StagedDirectory(directory)
        kept = [row for row in read_metrics(directory) if row["step"] <= resume_at]
        path = self._staged.local / METRICS_FILE
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._lines = path.open("a")
        where = str(self._staged.local)
        self._events = tensorboardX.SummaryWriter(where, purge_step=resume_at + 1)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds one report."""
        # JSON has no word for a number that is not finite.
        row = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
        self._lines.write(json.dumps({"step": step} | row) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(name.replace("=", "_"), value, step)  # "=" is not allowed.

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Adds texts to the events."""
        for name, text in texts.items():
            self._events.add_text(name, text, step)

    def flush(self) -> None:
        """Makes everything visible to readers of the files."""
        self._lines.flush()
        self._events.flush()
        self._staged.upload()

    def close(self) -> None:
        """Flushes and closes the files."""
        self._lines.close()
        self._events.close()
        self._staged.close()


def read_metrics(directory: epath.Path) -> list[dict[str, float]]:
    """All reports in a folder, in order; a line that a kill cut short is left out."""
    path = directory / METRICS_FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            logging.warning("%s: a line was cut short and is left out: %s", path, line[:80])
    return rows


def read_curves(
    directory: epath.Path, names: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """What was reported under these names: (step, value) in order; NaN where it was not finite."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in read_metrics(directory):
        for name in names:
            if name in row:
                value = float("nan") if row[name] is None else row[name]
                found.setdefault(name, []).append((row["step"], value))
    return found


class ProgressBar:
    """How far something long has come: a live bar on a terminal, lines in a log."""

    def __init__(self, title: str, total: int, start: int = 0, unit: str = "step") -> None:
        """Begins at `start` of `total` units."""
        self._live = sys.stderr.isatty() and distributed.is_primary()
        self._title, self._total, self._start = title, total, start
        self._began = self._last = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total,
            initial=start,
            desc=title,
            unit=unit,
            disable=not self._live,
            dynamic_ncols=True,
        )

    def advance(self, done: int) -> None:
        """Says that `done` units of the total are done."""
        self._bar.update(done - self._bar.n if self._live else 0)

    def report(self, done: int, text: str) -> None:
        """Says how it goes: behind the bar, or as a line of its own."""
        if self._live:
            self._bar.set_postfix_str(text)
            return
        elapsed = time.monotonic() - self._began
        left = elapsed / max(1, done - self._start) * (self._total - done)
        logging.info(
            "%s %d/%d | %s | %s left", self._title, done, self._total, text, _format_duration(left)
        )

    def close(self) -> None:
        """Leaves the bar where it stands."""
        self._bar.close()


def _format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
