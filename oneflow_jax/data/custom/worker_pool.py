"""Processes that make units of own data, and may die or hang over what they read.

A document that costs its process its life twice is left out, under its name; the unit goes on with
the next one.
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
"""A machine may be short of memory once."""

COMMAND = (sys.executable, "-m", "oneflow_jax.data.custom.worker")

_POLL_INTERVAL_S = 0.2  # seconds between looks at processes that say nothing
_STARTUP_GRACE_S = 60.0  # seconds that a process may take to begin, beyond its patience


@dataclasses.dataclass
class _Task:
    """A unit to make, and what its earlier processes have died of."""

    number: int
    skip: dict[int, str] = dataclasses.field(default_factory=dict)
    stop: tuple[int, str] = (-1, "")
    deaths: collections.Counter[tuple[str, int]] = dataclasses.field(
        default_factory=collections.Counter
    )

    def record_crash(self, at: tuple[str, int], reason: str) -> None:
        """Takes note; a place where it happens again is passed over from now on."""
        self.deaths[at] += 1
        if self.deaths[at] < MAX_ATTEMPTS:
            return
        doing, place = at
        if doing == "making":
            self.skip[place] = reason
        elif doing == "reading":
            self.stop = (place, reason)
        else:
            raise RuntimeError(f"The process that makes unit {self.number} {reason} at its start.")


class _Worker:
    """One process; makes one unit at a time."""

    def __init__(self, plan: Manifest, held: Sequence[int], command: Sequence[str]) -> None:
        package = str(pathlib.Path(oneflow_jax.__file__).parent.parent)
        before = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([package, before] if before else [package])
        self._process = subprocess.Popen(
            [*command, str(plan.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # What decoders have to say of each broken picture.
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            pass_fds=held,
        )
        self._plan = plan
        self._rest = b""
        self.task: _Task | None = None
        self.at = ("start", -1)
        self.heard = time.monotonic()

    @property
    def output(self) -> int:
        """Number of the file that it speaks on."""
        return self._process.stdout.fileno()

    def give(self, task: _Task) -> None:
        """Has it make a unit."""
        self.task, self.at, self.heard = task, ("start", -1), time.monotonic()
        line = json.dumps({"unit": task.number, "skip": task.skip, "stop": task.stop})
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # It has died; its output says so next.

    def said(self) -> list[tuple[str, Any]] | None:
        """What it has said since; None if it has died."""
        data = os.read(self.output, 2**16)
        if not data:
            return None
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [tuple(json.loads(line)) for line in lines]

    def hangs(self) -> bool:
        """Whether it has been silent for too long."""
        allowed = self._plan.settings.patience + (_STARTUP_GRACE_S if self.at[0] == "start" else 0)
        return time.monotonic() - self.heard > allowed

    def end(self) -> None:
        """Ends it, if it has not ended."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


class WorkerPool:
    """Makes units; a context, which leaves no process behind."""

    def __init__(
        self,
        plan: Manifest,
        workers: int,
        held: Sequence[int] = (),
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Starts nothing yet.

        Args:
            plan: of the units.
            workers: processes at a time.
            held: numbers of open files that stay open as long as any process lives: a lock.
            command: starts a process, given the folder.
        """
        self._plan, self._workers = plan, workers
        self._held, self._command = held, command
        self._working: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self._working:
            worker.end()
        self._selector.close()

    def made(self, numbers: Sequence[int]) -> Iterator[int]:
        """Makes the units with these numbers; yields each when it is whole.

        Raises:
            UserError: the disk is full.
            RuntimeError: a process failed for no fault of the data's.
        """
        waiting = collections.deque(_Task(number) for number in numbers)
        for _ in range(min(self._workers, len(waiting))):
            self._start(waiting.popleft())
        while self._working:
            for key, _ in self._selector.select(_POLL_INTERVAL_S):
                yield from self._heard(key.data, waiting)
            for worker in [each for each in self._working if each.hangs()]:
                self._again(worker, "the reader hung")

    def _start(self, task: _Task) -> None:
        worker = _Worker(self._plan, self._held, self._command)
        self._working.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)
        worker.give(task)

    def _heard(self, worker: _Worker, waiting: collections.deque[_Task]) -> Iterator[int]:
        said = worker.said()
        if said is None:
            self._again(worker, "the reader died")
            return
        for what, value in said:
            if what == "done":
                yield value
                if not waiting:
                    self._end(worker)
                    return
                worker.give(waiting.popleft())
            elif what == "full":
                raise UserError(
                    f"{self._plan.folder}: {value}. Free some space, or set data.dir; the same "
                    "command goes on with what is there."
                )
            elif what == "failed":
                raise RuntimeError(f"A unit of {self._plan.folder} could not be made:\n{value}")
            else:
                worker.at = (what, value)

    def _again(self, worker: _Worker, reason: str) -> None:
        """Ends the worker, and has another one make its unit."""
        task = worker.task
        self._end(worker)
        task.record_crash(worker.at, reason)
        self._start(task)

    def _end(self, worker: _Worker) -> None:
        self._selector.unregister(worker.output)
        self._working.remove(worker)
        worker.end()
