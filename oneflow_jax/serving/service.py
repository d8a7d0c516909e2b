"""The queue of requests, and the thread that runs them in batches; HTTP is in `serving.http`.

One thread uses the devices. It takes the request that has waited longest, and all waiting requests
that the same compiled program can run in the same batch. A request that is cancelled is dropped
from the queue, or its batch stops before the next step if no other request is in it.
"""

import collections
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from oneflow_jax.api.batch import BatchRun
from oneflow_jax.api.call import Call
from oneflow_jax.api.model import Model
from oneflow_jax.serving import events
from oneflow_jax.serving.counters import Counters
from oneflow_jax.serving.limits import Limits
from oneflow_jax.serving.models import ModelRegistry

QUIET_STEPS = 8
"""Steps of a batch without streams, before the worker checks for cancelled requests."""

STOPPED = "The server was stopped. Send the request again later."


class QueueFullError(Exception):
    """The queue is full, so that the request was refused."""


class WorkerStoppedError(Exception):
    """The thread that runs the requests has ended."""


@dataclasses.dataclass(eq=False)
class Job:
    """A request in the queue or in a batch.

    Attributes:
        model: name of the model.
        call: the checked call.
        listener: function that gets the events of the request.
        wants_states: whether the listener gets the documents before each step.
        cancelled: whether the client no longer waits for the request.
        position: position in the last `Queued` event of the request; -1 before the first one.
    """

    model: str
    call: Call
    listener: events.Listener
    wants_states: bool
    cancelled: bool = False
    position: int = -1

    @property
    def batch_key(self) -> object:
        """What requests of one batch have in common."""
        return self.model, self.call.batch_key


class Service:
    """Trained models behind a queue.

    Attributes:
        models: the models by name; the first one is the default of requests.
        limits: limits on requests.
        counters: counts of requests, for the metrics.
    """

    def __init__(
        self, models: Mapping[str, str | os.PathLike[str] | Model], limits: Limits | None = None
    ) -> None:
        """Register the models, and start the thread that runs the requests.

        Args:
            models: models by name; each is a loaded model, or the folder of a run, which is loaded
                when a request first names the model.
            limits: limits on requests; None means the defaults.

        Raises:
            UserError: a folder has no run with a checkpoint.
        """
        self.limits = limits or Limits()
        self.models = ModelRegistry(models)
        self.counters = Counters()
        self._waiting: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="oneflow-serve", daemon=True)
        self._worker.start()

    @property
    def default_model(self) -> str:
        """Name of the model of a request that names none."""
        return self.models.names[0]

    @property
    def num_waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether the thread that runs the requests is alive."""
        return self._worker.is_alive()

    def get_model(self, name: str | None) -> Model:
        """Return the model with this name, and load it if needed; None means the default.

        Raises:
            UserError: no model has this name, or it cannot be loaded.
        """
        return self.models[self.default_model if name is None else name]

    def submit(
        self,
        model: str | None,
        call: Call,
        listener: events.Listener,
        *,
        wants_states: bool = False,
    ) -> Job:
        """Append a request to the queue.

        Args:
            model: name of the model that checked the call; None means the default.
            call: the call, from `Model.prepare_generate` or `Model.prepare_edit`.
            listener: function that gets the events: the last one is `Done` or `Failed`, unless the
                request is cancelled.
            wants_states: whether the listener gets `State` events.

        Raises:
            UserError: the request has too many samples or steps.
            QueueFullError: too many requests wait.
            WorkerStoppedError: the service is closed.
        """
        self.limits.check(call.num_documents, call.num_steps)
        job = Job(model or self.default_model, call, listener, wants_states)
        with self._changed:
            if self._closed or not self.is_alive:
                raise WorkerStoppedError("The server does not run requests any more. Restart it.")
            if len(self._waiting) >= self.limits.queue:
                self.counters.add("refused")
                raise QueueFullError(
                    f"queue={self.limits.queue}: this many requests wait already. Try again later."
                )
            self._waiting.append(job)
            self.counters.add("received")
            self._send_positions()
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a request; its listener gets no more events. A finished request stays finished."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self.counters.add("cancelled")
                self._send_positions()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the worker after its current step, and fail all requests that are not finished."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, collections.deque()
            self._changed.notify()
        self._fail(waiting, events.Failed(STOPPED, is_bug=False))
        self._worker.join()

    def _work(self) -> None:
        while batch := self._take_batch():
            try:
                self._run(batch)
            except WorkerStoppedError:
                self._fail(batch, events.Failed(STOPPED, is_bug=False))
            except Exception as error:  # A failed batch must not end the server.
                logging.exception("A batch of %d requests failed.", len(batch))
                self._fail(batch, events.Failed(f"The batch failed: {error}", is_bug=True))

    def _take_batch(self) -> list[Job]:
        """Wait for a request; return it with those that fit its batch, or [] to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            batch, rows = [], 0
            key = self._waiting[0].batch_key
            for job in list(self._waiting):
                if job.batch_key == key and rows + job.call.num_documents <= self.limits.rows:
                    batch.append(job)
                    rows += job.call.num_documents
                    self._waiting.remove(job)
            self._send_positions()
            return batch

    def _send_positions(self) -> None:
        for position, job in enumerate(self._waiting):
            if job.position != position:
                job.position = position
                job.listener(events.Queued(position))

    def _run(self, batch: Sequence[Job]) -> None:
        """Run a batch to its end, or until all its requests are cancelled."""
        start = time.monotonic()
        calls = [job.call for job in batch]
        run = self.models[batch[0].model].start_batch(calls, self.limits.rows)
        self.counters.add("batches")
        self.counters.add("rows", sum(call.num_documents for call in calls))
        shows_states = any(job.wants_states for job in batch)
        if run.needs_compilation(shows_states=shows_states):
            self._send(batch, events.Compiling())
        while not run.is_done:
            if self._closed:
                raise WorkerStoppedError(STOPPED)
            if all(job.cancelled for job in batch):
                self.counters.add("cancelled", len(batch))
                return
            self._advance(batch, run)
        results = run.results(shows_states=shows_states)
        seconds = time.monotonic() - start
        for job, result in zip(batch, results, strict=True):
            if job.wants_states:
                self._send([job], events.State(run.step, run.step, result.last_steps))
            self._finish(job, events.Done(result.documents, result.nfe, seconds))

    def _advance(self, batch: Sequence[Job], run: BatchRun) -> None:
        """Run the next steps, and send the documents before them to requests that want them."""
        shown = [n for n, job in enumerate(batch) if job.wants_states and not job.cancelled]
        step = run.step
        for n, documents in run.advance(shown, 1 if shown else QUIET_STEPS).items():
            self._send([batch[n]], events.State(step, run.num_steps, documents))

    def _fail(self, jobs: Iterable[Job], event: events.Failed) -> None:
        for job in jobs:
            self._finish(job, event)

    def _finish(self, job: Job, event: events.Done | events.Failed) -> None:
        result = "finished" if isinstance(event, events.Done) else "failed"
        self.counters.add("cancelled" if job.cancelled else result)
        self._send([job], event)

    def _send(self, jobs: Sequence[Job], event: events.Event) -> None:
        for job in jobs:
            if not job.cancelled:
                job.listener(event)
