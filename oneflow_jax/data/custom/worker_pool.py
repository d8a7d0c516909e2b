"""Pool of processes that prepare units of custom data and that may crash or hang on bad data.

A document that crashes its process twice is dropped and reported. If the process had already read
the document, the unit continues with the next one. Otherwise the rest of the unit is dropped, too.
"""

import collections
import dataclasses
import json
import os
import pathlib
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import oneflow_jax
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.errors import UserError

MAX_ATTEMPTS = 2
"""Number of attempts per document. A second one helps if memory was short for a moment."""

COMMAND = (sys.executable, "-m", "oneflow_jax.data.custom.worker")

_POLL_INTERVAL_S = 0.2  # seconds between timeout checks while no process sends a message
_STARTUP_GRACE_S = 60.0  # seconds for starting a process, in addition to the read timeout


@dataclasses.dataclass
class _Task:
    """A unit to prepare, and the crashes of earlier attempts."""

    number: int
    skip: dict[int, str] = dataclasses.field(default_factory=dict)
    stop: tuple[int, str] = (-1, "")
    crashes: collections.Counter[tuple[str, int]] = dataclasses.field(
        default_factory=collections.Counter
    )

    def record_crash(self, stage: tuple[str, int], reason: str) -> None:
        """Record a crash. After `MAX_ATTEMPTS` crashes at one stage, drop what cannot be prepared.

        That is one document, or after crashes in reading, the rest of the unit.

        Raises:
            RuntimeError: the process crashed before it read a document.
        """
        self.crashes[stage] += 1
        if self.crashes[stage] < MAX_ATTEMPTS:
            return
        doing, place = stage
        if doing == "making":
            self.skip[place] = reason
        elif doing == "reading":
            self.stop = (place, reason)
        else:
            raise RuntimeError(f"Preparing unit {self.number}: {reason} before it read a document.")


class _Worker:
    """Handle of a process that prepares one unit at a time."""

    def __init__(
        self, manifest: Manifest, inherited_fds: Sequence[int], command: Sequence[str]
    ) -> None:
        package = str(pathlib.Path(oneflow_jax.__file__).parent.parent)
        before = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([package, before] if before else [package])
        self._process = subprocess.Popen(
            [*command, str(manifest.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # Image decoders print warnings about broken images.
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            pass_fds=inherited_fds,
        )
        self._manifest = manifest
        self._partial_line = b""
        self.task: _Task | None = None
        self.stage = ("start", -1)
        self.last_message_time = time.monotonic()

    @property
    def output_fd(self) -> int:
        """File descriptor of the output of the process."""
        return self._process.stdout.fileno()

    def submit(self, task: _Task) -> None:
        """Send a unit to the process."""
        self.task, self.stage, self.last_message_time = task, ("start", -1), time.monotonic()
        line = json.dumps({"unit": task.number, "skip": task.skip, "stop": task.stop})
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # The process has died; `poll` detects it.

    def poll(self) -> list[tuple[str, Any]] | None:
        """Return the new messages of the process, or None if it has died."""
        data = os.read(self.output_fd, 2**16)
        if not data:
            return None
        self.last_message_time = time.monotonic()
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        return [tuple(json.loads(line)) for line in lines]

    def has_timed_out(self) -> bool:
        """Return whether the process has sent no message for longer than its time limit."""
        allowed = self._manifest.settings.read_timeout + (
            _STARTUP_GRACE_S if self.stage[0] == "start" else 0
        )
        return time.monotonic() - self.last_message_time > allowed

    def kill(self) -> None:
        """Kill the process if it is running."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


class WorkerPool:
    """Context manager that prepares units in processes and kills these processes on exit."""

    def __init__(
        self,
        manifest: Manifest,
        num_workers: int,
        inherited_fds: Sequence[int] = (),
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Initialize the pool without starting processes.

        Args:
            manifest: manifest of the units.
            num_workers: maximum number of processes that run at the same time.
            inherited_fds: file descriptors that every process inherits. A lock on one of them is
                held until the last process has ended.
            command: command that starts a process; the folder of the manifest is appended.
        """
        self._manifest, self._num_workers = manifest, num_workers
        self._inherited_fds, self._command = inherited_fds, command
        self._active_workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self._active_workers:
            worker.kill()
        self._selector.close()

    def run(self, numbers: Sequence[int]) -> Iterator[int]:
        """Prepare the units with these numbers, and yield each number when its unit is complete.

        Raises:
            UserError: the disk is full or cannot be written.
            RuntimeError: a process failed for a reason other than the data.
        """
        waiting = collections.deque(_Task(number) for number in numbers)
        for _ in range(min(self._num_workers, len(waiting))):
            self._start_worker(waiting.popleft())
        while self._active_workers:
            for key, _ in self._selector.select(_POLL_INTERVAL_S):
                yield from self._handle_messages(key.data, waiting)
            for worker in [each for each in self._active_workers if each.has_timed_out()]:
                self._retry(worker, "the reader hung")

    def _start_worker(self, task: _Task) -> None:
        worker = _Worker(self._manifest, self._inherited_fds, self._command)
        self._active_workers.append(worker)
        self._selector.register(worker.output_fd, selectors.EVENT_READ, worker)
        worker.submit(task)

    def _handle_messages(self, worker: _Worker, pending: collections.deque[_Task]) -> Iterator[int]:
        messages = worker.poll()
        if messages is None:
            self._retry(worker, "the reader died")
            return
        for what, value in messages:
            if what == "done":
                yield value
                if not pending:
                    self._stop_worker(worker)
                    return
                worker.submit(pending.popleft())
            elif what == "full":
                raise UserError(
                    f"{self._manifest.folder}: {value}. Free some space, or set data.dir. Then run "
                    "the same command again to continue."
                )
            elif what == "failed":
                raise RuntimeError(f"A unit of {self._manifest.folder} has failed:\n{value}")
            else:
                worker.stage = (what, value)

    def _retry(self, worker: _Worker, reason: str) -> None:
        """Stop the worker, and start a new worker on the same unit."""
        task = worker.task
        self._stop_worker(worker)
        task.record_crash(worker.stage, reason)
        self._start_worker(task)

    def _stop_worker(self, worker: _Worker) -> None:
        self._selector.unregister(worker.output_fd)
        self._active_workers.remove(worker)
        worker.kill()
